// The umask takes bits out of the mode: with 077 the devices are for root alone.
    for device in devices {
        let (path, mode) = (&*device.path, Mode::from_bits_truncate(device.mode));
        call!(mknod(path, device.kind, mode, device.number))?;
        let (uid, gid) = device.owner;
        call!(chown(path, Some(Uid::from(uid)), Some(Gid::from(gid))))?;
    }
    Ok(())
