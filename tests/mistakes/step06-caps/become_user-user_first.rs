// Without uid 0 nobody changes groups any more.
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    call!(set_keepcaps(true))?;
    call!(setresuid(uid, uid, uid))?;
    call!(setgroups(&groups))?;
    call!(setresgid(gid, gid, gid))?;
    Ok(())
