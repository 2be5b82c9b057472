//! What is done before the C library begins.
//!
//! `create`, `run` and `exec` go near a container, so this program executes itself anew from where no container can change
//! it: see step 9's `sealed`. It would do the same later, in `main`; here it saves time. At each start the C library asks
//! the processor what it has, by an instruction (CPUID) that leaves a virtual machine, and it asks again and again: there
//! that takes more than half of a start. The first execution of a static program doesn't wait for it; a dynamic one's
//! loader has asked by then.
//!
//! Here is neither a library nor an allocator, not even `memcmp`, and no address that is still to be relocated. So here is
//! only what mostly happens: whatever the kernel refuses is met again, and said, by
//! [`be_sealed`](step09_detach::sealed::be_sealed), which begins anew.

use std::arch::global_asm;
use std::ffi::{CStr, c_char, c_void};
use std::mem::{MaybeUninit, size_of};
use syscalls::{Sysno, syscall};

// The first instructions of the program, if the linker is told so: `--entry` of ld(1). The stack pointer is where the
// kernel has left the words. What a loader has left in a register is for `_start`, which comes next.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl begin_before_libc",
    "begin_before_libc:",
    "mov rdi, rsp",
    // Twice: a call wants the stack aligned to 16 bytes.
    "push rdx",
    "push rdx",
    "call {}",
    "pop rdx",
    "pop rdx",
    "jmp _start",
    sym before_libc
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl begin_before_libc",
    "begin_before_libc:",
    "stp x0, x30, [sp, #-16]!",
    "add x0, sp, #16",
    "bl {}",
    "ldp x0, x30, [sp], #16",
    "b _start",
    sym before_libc
);

/// Comes back when there is nothing to do here.
///
/// # Safety
/// At `stack` is what the kernel leaves there: the number of words, the words, a null pointer, the environment's variables
/// and a null pointer. See execve(2).
unsafe extern "C" fn before_libc(stack: *const c_void) {
    // SAFETY: as the caller has it.
    unsafe {
        let argc = *stack.cast::<usize>();
        let argv = stack.cast::<*const c_char>().add(1);
        if asks_for_a_container(argc, argv) {
            execute_sealed(argv, argv.add(argc + 1));
        }
    }
}

/// Whether one of the `argc` words of `argv` is the name of a command that goes near a container; it may be the name of
/// something else, which costs an execution and nothing more.
unsafe fn asks_for_a_container(argc: usize, argv: *const *const c_char) -> bool {
    // SAFETY: as the caller has it.
    (0..argc)
        .map(|at| unsafe { *argv.add(at) })
        .any(|word| unsafe { is(word, c"create") || is(word, c"run") || is(word, c"exec") })
}

/// Whether `word` is `name`, byte by byte: where the compiler sees a comparison, it calls the library.
unsafe fn is(word: *const c_char, name: &CStr) -> bool {
    // SAFETY: both end with a NUL, and none is read behind its own or behind a difference.
    (0..=name.count_bytes())
        .all(|at| unsafe { word.add(at).read_volatile() == name.as_ptr().add(at).read_volatile() })
}

/// Executes this program from a mount for reading only, unless its file is on one. Comes back when anything is refused.
unsafe fn execute_sealed(argv: *const *const c_char, envp: *const *const c_char) {
    let (itself, here) = (c"/proc/self/exe".as_ptr(), c"".as_ptr());
    let mut filesystem = MaybeUninit::<libc::statfs64>::uninit();
    let read_only = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let (attributes, size) = (&raw const read_only, size_of::<libc::mount_attr>());
    let copies = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the kernel reads two paths, the attributes and the caller's words, and fills in what is large enough; it is
    // read only when it has been.
    unsafe {
        let known = syscall!(Sysno::statfs, itself, filesystem.as_mut_ptr());
        if known.is_err() || filesystem.assume_init_ref().f_flags as u64 & libc::ST_RDONLY != 0 {
            return;
        }
        let Ok(tree) = syscall!(Sysno::open_tree, libc::AT_FDCWD, itself, copies) else {
            return;
        };
        let flags = libc::AT_EMPTY_PATH;
        if syscall!(Sysno::mount_setattr, tree, here, flags, attributes, size).is_ok() {
            let _ = syscall!(Sysno::execveat, tree, here, argv, envp, flags);
        }
        let _ = syscall!(Sysno::close, tree);
    }
}
