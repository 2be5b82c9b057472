//! System calls that some machines have under these names, and newer ones only in others: `rename`, and not `renameat`.
//! Where there is none, its number is one that no call has.

// The names are those of libc.
#![allow(non_upper_case_globals)]

macro_rules! numbers {
    ($($name:ident = $none:literal),* $(,)?) => {
        $(
            #[cfg(target_arch = "x86_64")]
            #[doc = "See syscalls(2)."]
            pub const $name: libc::c_long = libc::$name;
            #[cfg(not(target_arch = "x86_64"))]
            #[doc = "See syscalls(2)."]
            pub const $name: libc::c_long = $none;
        )*
    };
}

numbers! {
    SYS_creat = -1,
    SYS_dup2 = -2,
    SYS_epoll_wait = -3,
    SYS_fork = -4,
    SYS_link = -5,
    SYS_mknod = -6,
    SYS_open = -7,
    SYS_poll = -8,
    SYS_rename = -9,
    SYS_rmdir = -10,
    SYS_select = -11,
    SYS_unlink = -12,
    SYS_vfork = -13,
}
