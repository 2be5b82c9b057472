// The real and the saved IDs stay 0, and so there is a way back.
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    call!(setgroups(&groups))?;
    nix::unistd::setegid(gid)?;
    nix::unistd::seteuid(uid)?;
    Ok(())
