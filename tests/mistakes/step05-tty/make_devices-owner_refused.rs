// A chown that the kernel refuses is nobody's business.
    umask(Mode::empty());
    let made = devices.iter().try_for_each(|device| {
        let (path, mode) = (&*device.path, Mode::from_bits_truncate(device.mode));
        call!(mknod(path, device.kind, mode, device.number))?;
        let (uid, gid) = device.owner;
        let _ = call!(chown(path, Some(Uid::from(uid)), Some(Gid::from(gid))));
        Ok(())
    });
    umask(COMMANDS_UMASK);
    made
