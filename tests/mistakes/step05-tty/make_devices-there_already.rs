// What is there already is taken for the device, and may be a link to another file.
    umask(Mode::empty());
    for device in devices {
        let (path, mode) = (&*device.path, Mode::from_bits_truncate(device.mode));
        match call!(mknod(path, device.kind, mode, device.number)) {
            Err(refused) if refused.errno() == Errno::EEXIST => continue,
            made => made?,
        }
        let (uid, gid) = device.owner;
        call!(chown(path, Some(Uid::from(uid)), Some(Gid::from(gid))))?;
    }
    umask(COMMANDS_UMASK);
    Ok(())
