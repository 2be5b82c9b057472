// Reading the flags changes none.
    let socket = call!(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    ))?;
    call!(interface_flags(&socket, "lo"))?;
    Ok(())
