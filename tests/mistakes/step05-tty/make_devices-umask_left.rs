// On the way that fails the umask stays at 0.
    let before = umask(Mode::empty());
    for device in devices {
        let (path, mode) = (&*device.path, Mode::from_bits_truncate(device.mode));
        call!(mknod(path, device.kind, mode, device.number))?;
        let (uid, gid) = device.owner;
        call!(chown(path, Some(Uid::from(uid)), Some(Gid::from(gid))))?;
    }
    umask(before);
    Ok(())
