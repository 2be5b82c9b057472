// The old procfs goes first.
    let none = None::<&str>;
    let _ = nix::mount::umount2("/proc", nix::mount::MntFlags::MNT_DETACH);
    call!(mount(Some("proc"), "/proc", Some("proc"), NOTHING_TO_RUN, none))?;
    Ok(())
