// With the last uid 0 all capabilities are gone, before anybody said which remain.
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    call!(setgroups(&groups))?;
    call!(setresgid(gid, gid, gid))?;
    call!(setresuid(uid, uid, uid))?;
    Ok(())
