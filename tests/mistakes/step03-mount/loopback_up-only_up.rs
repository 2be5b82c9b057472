// The other flags are lost.
    let socket = call!(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    ))?;
    call!(set_interface_flags(&socket, "lo", libc::IFF_UP))?;
    Ok(())
