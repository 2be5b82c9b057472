//! The architectures whose system calls can be made here, and the numbers that each has for their names.

use std::str::FromStr;
use syscalls::{
    aarch64, arm, loongarch64, mips, mips64, powerpc, powerpc64, riscv32, riscv64, s390x, sparc,
    sparc64, x86, x86_64,
};

/// An architecture whose system calls can be made on this machine.
pub struct Arch {
    /// Its name in a profile.
    pub name: &'static str,
    /// Its name in a rule's `arches`.
    pub short: &'static str,
    /// Its AUDIT_ARCH_… number: the ELF machine, and whether it has 64 bits and is little-endian.
    pub audit: u32,
    /// The number of a system call, by the call's name.
    pub number: fn(&str) -> Option<u32>,
}

const LITTLE_ENDIAN: u32 = 0x4000_0000;
const BITS_64: u32 = 0x8000_0000;

/// `number_of!(arch)`: the number that the architecture has for a name.
macro_rules! number_of {
    ($arch:ident) => {
        |name| {
            $arch::Sysno::from_str(name)
                .ok()
                .map(|call| call.id() as u32)
        }
    };
}

/// This machine's architectures, its own first.
#[cfg(target_arch = "x86_64")]
pub const ARCHES: [Arch; 2] = [
    Arch {
        name: "SCMP_ARCH_X86_64",
        short: "amd64",
        audit: libc::EM_X86_64 as u32 | BITS_64 | LITTLE_ENDIAN,
        number: number_of!(x86_64),
    },
    Arch {
        name: "SCMP_ARCH_X86",
        short: "x86",
        audit: libc::EM_386 as u32 | LITTLE_ENDIAN,
        number: number_of!(x86),
    },
];

/// This machine's architectures, its own first.
#[cfg(target_arch = "aarch64")]
pub const ARCHES: [Arch; 2] = [
    Arch {
        name: "SCMP_ARCH_AARCH64",
        short: "arm64",
        audit: libc::EM_AARCH64 as u32 | BITS_64 | LITTLE_ENDIAN,
        number: number_of!(aarch64),
    },
    Arch {
        name: "SCMP_ARCH_ARM",
        short: "arm",
        audit: libc::EM_ARM as u32 | LITTLE_ENDIAN,
        number: |name| {
            let number: fn(&str) -> Option<u32> = number_of!(arm);
            let private = ARM_PRIVATE.iter().position(|known| *known == name);
            private
                .map(|at| 0x000f_0001 + at as u32)
                .or_else(|| number(name))
        },
    },
];

/// The AUDIT_ARCH_… number of 64-bit programs on a PC.
pub const AUDIT_ARCH_X86_64: u32 = libc::EM_X86_64 as u32 | BITS_64 | LITTLE_ENDIAN;
/// A bit in the numbers of x32's calls.
pub const X32_SYSCALL_BIT: u32 = 0x4000_0000;

/// A number above all those of the common table.
pub const FAR: u32 = 0x000f_0000;

/// ARM has a few calls of its own, far from the others: asm/unistd.h.
const ARM_PRIVATE: [&str; 5] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls"];

/// Whether some architecture has a system call `name`. A profile is written for all of them.
pub fn is_known(name: &str) -> bool {
    let tables: [fn(&str) -> Option<u32>; 14] = [
        number_of!(x86_64),
        number_of!(x86),
        number_of!(aarch64),
        number_of!(arm),
        number_of!(s390x),
        number_of!(powerpc64),
        number_of!(powerpc),
        number_of!(riscv64),
        number_of!(riscv32),
        number_of!(loongarch64),
        number_of!(mips),
        number_of!(mips64),
        number_of!(sparc),
        number_of!(sparc64),
    ];
    ARM_PRIVATE.contains(&name) || tables.iter().any(|number| number(name).is_some())
}
