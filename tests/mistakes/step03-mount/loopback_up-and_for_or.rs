// `&` keeps the flag that isn't there; `|` adds it.
    let socket = call!(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    ))?;
    let flags = call!(interface_flags(&socket, "lo"))?;
    call!(set_interface_flags(&socket, "lo", flags & libc::IFF_UP))?;
    Ok(())
