// The groups of the host's root stay.
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    call!(setresgid(gid, gid, gid))?;
    if uid != getuid() {
        call!(set_keepcaps(true))?;
        call!(setresuid(uid, uid, uid))?;
    }
    Ok(())
