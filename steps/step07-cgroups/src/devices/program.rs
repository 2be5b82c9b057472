//! The rules for devices in cgroups version 2: a small program that the kernel runs whenever a
//! process of the group makes or opens a device file. See BPF_PROG_TYPE_CGROUP_DEVICE in the kernel's
//! documentation, bpf(2).

use crate::devices::{Access, DeviceRule};
use anyhow::Result;
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use step01_uts::call;

/// One instruction: struct bpf_insn.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The destination register's number in the low half, the source register's in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// What the kernel hands over in R1: struct bpf_cgroup_dev_ctx.
const ACCESS_AND_TYPE: i16 = 0; // the access in the upper 16 bits
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

// include/uapi/linux/bpf.h
const BPF_DEVCG_ACC_MKNOD: i32 = 1;
const BPF_DEVCG_ACC_READ: i32 = 2;
const BPF_DEVCG_ACC_WRITE: i32 = 4;
const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

// Instructions of 32 bits: the class with an operation and, for X, a register as the source.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_X: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_UNLESS_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_IF_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers: the answer, what is handed over, and what we keep.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ASKED: u8 = 3;
const MAJOR_ASKED: u8 = 4;
const MINOR_ASKED: u8 = 5;

fn immediate(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset: 0,
        immediate,
    }
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        registers: register | CONTEXT << 4,
        offset,
        immediate: 0,
    }
}

fn copy(to: u8, from: u8) -> Instruction {
    immediate(MOVE_X, to | from << 4, 0)
}

/// The program for `rules`, from the last to the first. Each kind of access is decided by the first of them that is about
/// it: the answer is yes when all that is asked for is allowed, and no as soon as any of it is denied, or in the end.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(TYPE, ACCESS_AND_TYPE),
        load(MAJOR_ASKED, MAJOR),
        load(MINOR_ASKED, MINOR),
        copy(ASKED, TYPE),
        immediate(SHIFT_RIGHT, ASKED, 16),
        immediate(AND, TYPE, 0xffff),
    ];
    for rule in rules.iter().rev() {
        let kind = match rule.kind {
            SFlag::S_IFBLK => BPF_DEVCG_DEV_BLOCK,
            _ => BPF_DEVCG_DEV_CHAR,
        };
        // Each test jumps to the next rule unless the two numbers are equal.
        let mut tests = vec![immediate(JUMP_UNLESS_EQUAL, TYPE, kind)];
        let major = rule.major.map(|major| (MAJOR_ASKED, major));
        let minor = rule.minor.map(|minor| (MINOR_ASKED, minor));
        for (register, number) in major.into_iter().chain(minor) {
            tests.push(immediate(JUMP_UNLESS_EQUAL, register, number as i32));
        }
        let bits = bits(rule.access);
        match rule.allow {
            // The rules before this one are asked for what isn't allowed yet.
            true => tests.extend([
                immediate(AND, ASKED, !bits),
                immediate(JUMP_UNLESS_EQUAL, ASKED, 0),
            ]),
            // The register CONTEXT isn't needed for the context any more.
            false => tests.extend([
                copy(CONTEXT, ASKED),
                immediate(AND, CONTEXT, bits),
                immediate(JUMP_IF_EQUAL, CONTEXT, 0),
            ]),
        }
        let answer = [
            immediate(MOVE, ANSWER, rule.allow.into()),
            immediate(EXIT, 0, 0),
        ];
        let length = tests.len() + answer.len();
        for (position, test) in tests.iter_mut().enumerate() {
            if [JUMP_UNLESS_EQUAL, JUMP_IF_EQUAL].contains(&test.code) {
                test.offset = (length - position - 1) as i16;
            }
        }
        program.extend(tests);
        program.extend(answer);
    }
    program.extend([immediate(MOVE, ANSWER, 0), immediate(EXIT, 0, 0)]);
    program
}

fn bits(access: Access) -> i32 {
    let bit = |is, bit| if is { bit } else { 0 };
    bit(access.read, BPF_DEVCG_ACC_READ)
        | bit(access.write, BPF_DEVCG_ACC_WRITE)
        | bit(access.mknod, BPF_DEVCG_ACC_MKNOD)
}

/// Has the kernel ask a program of `rules` about each device that a process of the control group
/// `folder`, or of one below it, makes or opens.
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM for want of CAP_BPF or CAP_SYS_ADMIN.
pub fn attach(folder: &File, rules: &[DeviceRule]) -> Result<()> {
    let program = program(rules);
    let program = call!(load_program(&program))?;
    call!(attach_program(folder, &program))?;
    Ok(())
}

impl step01_uts::call::Argument for Instruction {
    fn show(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:#04x}", self.code)
    }

    fn show_array(array: &[Self], f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "[/* {} instructions */]", array.len())
    }
}

/// BPF_PROG_LOAD in bpf(2): the kernel checks the program, and translates it.
fn load_program(program: &[Instruction]) -> nix::Result<OwnedFd> {
    /// The first members of union bpf_attr for this command.
    #[repr(C)]
    struct LoadAttributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let load = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let size = size_of::<LoadAttributes>();
    // SAFETY: the kernel reads the structure and what its members point to, and returns a descriptor.
    unsafe {
        let program = libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size);
        Ok(OwnedFd::from_raw_fd(Errno::result(program)? as i32))
    }
}

/// BPF_PROG_ATTACH in bpf(2).
fn attach_program(folder: &File, program: &OwnedFd) -> nix::Result<()> {
    #[repr(C)]
    struct AttachAttributes {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let attach = AttachAttributes {
        target: folder.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    let size = size_of::<AttachAttributes>();
    // SAFETY: the kernel reads the structure.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::DEFAULT_RULES;

    /// What the kernel would answer: eBPF, as far as we use it.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> i32 {
        let mut registers = [0_i32; 6];
        let mut at = 0;
        loop {
            let instruction = program[at];
            let (to, from) = (instruction.registers & 15, instruction.registers >> 4);
            let (to, value) = (usize::from(to), instruction.immediate);
            at += 1;
            match instruction.code {
                LOAD_WORD => {
                    registers[to] = match instruction.offset {
                        ACCESS_AND_TYPE => access << 16 | kind,
                        MAJOR => major,
                        _ => minor,
                    }
                }
                MOVE => registers[to] = value,
                MOVE_X => registers[to] = registers[usize::from(from)],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_UNLESS_EQUAL if registers[to] != value => at += instruction.offset as usize,
                JUMP_IF_EQUAL if registers[to] == value => at += instruction.offset as usize,
                JUMP_UNLESS_EQUAL | JUMP_IF_EQUAL => {}
                _ => return registers[0],
            }
        }
    }

    #[test]
    fn the_default_rules() {
        let program = program(DEFAULT_RULES);
        let (read, write, mknod) = (BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE, BPF_DEVCG_ACC_MKNOD);
        let (block, char) = (BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR);
        for (kind, access, number, wanted) in [
            (char, read | write, (1, 3), 1),
            (char, read, (136, 77), 1),
            (char, mknod, (200, 1), 1),
            (block, mknod, (8, 0), 1),
            (block, read, (8, 0), 0),
            (block, mknod | read, (8, 0), 0),
            (block, read, (1, 3), 0),
            (char, write, (1, 4), 0),
            (char, read, (10, 229), 0),
        ] {
            let said = run(&program, kind, access, number.0, number.1);
            assert_eq!(said, wanted, "{kind} {access} {number:?}");
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rule = |major, minor, letters: &str, allow| DeviceRule {
            kind: SFlag::S_IFCHR,
            major,
            minor,
            access: Access {
                read: letters.contains('r'),
                write: letters.contains('w'),
                mknod: letters.contains('m'),
            },
            allow,
        };
        let program = program(&[
            rule(None, None, "rwm", true),
            rule(Some(1), None, "w", false),
            rule(Some(1), Some(3), "rw", true),
            rule(Some(9), None, "r", false),
            rule(Some(9), None, "r", true),
        ]);
        let (read, write) = (BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE);
        for (number, access, wanted) in [
            ((5, 0), read | write, 1),
            ((1, 8), read, 1),
            ((1, 8), write, 0),
            ((1, 8), read | write, 0),
            ((1, 3), read | write, 1),
            ((1, 3), BPF_DEVCG_ACC_MKNOD, 1),
            // Written because of the third rule, made because of the first: the second is about neither.
            ((1, 3), BPF_DEVCG_ACC_MKNOD | write, 1),
            ((1, 8), BPF_DEVCG_ACC_MKNOD | write, 0),
            ((9, 1), read | write, 1),
        ] {
            let said = run(&program, BPF_DEVCG_DEV_CHAR, access, number.0, number.1);
            assert_eq!(said, wanted, "{number:?} {access}");
        }
    }
}
