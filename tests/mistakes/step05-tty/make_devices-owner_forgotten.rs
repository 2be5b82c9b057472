// Whoever makes a file owns it: the owner that the device is to have isn't looked at.
    umask(Mode::empty());
    let made = devices.iter().try_for_each(|device| {
        let (path, mode) = (&*device.path, Mode::from_bits_truncate(device.mode));
        call!(mknod(path, device.kind, mode, device.number))?;
        Ok(())
    });
    umask(COMMANDS_UMASK);
    made
