// An empty list is taken for nothing to do.
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    if !groups.is_empty() {
        call!(setgroups(&groups))?;
    }
    call!(setresgid(gid, gid, gid))?;
    call!(set_keepcaps(true))?;
    call!(setresuid(uid, uid, uid))?;
    Ok(())
