//! A filter of system calls: the small program that the kernel runs before each of them.
//!
//! The kernel hands the program a `struct seccomp_data`: the call's number, the architecture that the
//! number belongs to, and the call's six arguments. The program answers with what shall happen. A program
//! in classic BPF can look at numbers and jump forwards, and nothing else. See seccomp(2).
//!
//! A container makes thousands of calls a second. So the program finds the number by bisection, in about
//! seven comparisons, instead of going through some three hundred rules.

mod arches;
pub mod profile;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET,
    BPF_W, sock_filter,
};
use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
use step01_uts::call::Argument;

/// A program for the kernel, ready to be installed.
#[derive(Debug, Clone)]
pub struct Filter {
    instructions: Vec<sock_filter>,
    /// SECCOMP_FILTER_FLAG_…, for seccomp(2).
    pub flags: libc::c_ulong,
}

impl Filter {
    /// The program.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.instructions
    }
}

impl Argument for Filter {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{{/* {} instructions */}}", self.instructions.len())
    }
}

/// What the kernel does with a call: a SECCOMP_RET_… with its data.
pub type Action = u32;

/// A condition on one of a call's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument: 0 to 5.
    pub index: u32,
    /// The comparison that has to hold.
    pub test: Test,
}

/// A comparison of an argument's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// The argument is the number.
    Equal(u64),
    /// The argument isn't the number.
    NotEqual(u64),
    /// The argument is greater.
    Greater(u64),
    /// The argument is greater, or the number.
    GreaterOrEqual(u64),
    /// The argument is less.
    Less(u64),
    /// The argument is less, or the number.
    LessOrEqual(u64),
    /// Of the argument's bits in `mask`, those in `bits` are set and the others aren't.
    MaskedEqual {
        /// The bits that count.
        mask: u64,
        /// The values that these bits must have.
        bits: u64,
    },
}

/// What happens to one system call: the first rule whose conditions all hold decides. A rule without
/// conditions always holds.
pub type Rules = Vec<(Vec<Condition>, Action)>;

/// The rules of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The architecture's AUDIT_ARCH_… number.
    pub architecture: u32,
    /// The rules for each number of a system call.
    pub calls: BTreeMap<u32, Rules>,
    /// The highest number of a call that the profile knows.
    pub newest: Option<u32>,
    /// What happens to numbers without a rule, from each of these numbers on.
    pub from: Vec<(u32, Action)>,
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The most instructions that the kernel takes: BPF_MAXINSNS.
pub const MOST_INSTRUCTIONS: usize = 4096;

/// Translates `tables`. A call for which no rule holds gets `default`, and a call of another architecture
/// `foreign`. Fails with the number of instructions when the kernel doesn't take as many.
pub fn compile(tables: &[Table], default: Action, foreign: Action) -> Result<Filter, usize> {
    let mut program = vec![load(ARCHITECTURE)];
    for table in tables {
        let mut body = vec![load(NUMBER)];
        body.extend(bisect(&ranges(table, default), default));
        program.extend(unless(BPF_JEQ, table.architecture, body.len()));
        program.extend(body);
    }
    program.push(answer(foreign));
    match program.len() {
        ..=MOST_INSTRUCTIONS => Ok(Filter {
            instructions: program,
            flags: 0,
        }),
        more => Err(more),
    }
}

/// All numbers, cut into ranges where the rules change: the first number of each range, and the rules that
/// hold from there up to the next range.
fn ranges(table: &Table, default: Action) -> Vec<(u32, Rules)> {
    let otherwise = |number: u32| {
        let from = table.from.iter().filter(|(from, _)| number >= *from);
        vec![(
            vec![],
            from.max_by_key(|(from, _)| *from)
                .map_or(default, |(_, action)| *action),
        )]
    };
    let mut cuts = vec![(0, otherwise(0))];
    for &(from, _) in &table.from {
        cuts.push((from, otherwise(from)));
    }
    for (&number, rules) in &table.calls {
        cuts.push((number, rules.clone()));
        // The next number has no rule again, unless it has rules of its own.
        if !table.calls.contains_key(&(number + 1)) {
            cuts.push((number + 1, otherwise(number + 1)));
        }
    }
    // Of two cuts at one number the later one counts.
    cuts.reverse();
    cuts.sort_by_key(|(number, _)| *number);
    cuts.dedup_by_key(|(number, _)| *number);
    cuts.dedup_by(|later, earlier| later.1 == earlier.1);
    cuts
}

/// Translates `ranges` into a search for the range that the loaded number is in.
fn bisect(ranges: &[(u32, Rules)], default: Action) -> Vec<sock_filter> {
    if let [(_, rules)] = ranges {
        return apply(rules, default);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let low = bisect(low, default);
    let mut program = unless_below(high[0].0, low.len());
    program.extend(low);
    program.extend(bisect(high, default));
    program
}

/// Jumps over the next `length` instructions when the loaded number is `number` or more.
fn unless_below(number: u32, length: usize) -> Vec<sock_filter> {
    match u8::try_from(length) {
        Ok(length) => vec![jump(BPF_JGE, number, length, 0)],
        Err(_) => vec![jump(BPF_JGE, number, 0, 1), go(length)],
    }
}

/// Jumps over the next `length` instructions unless the comparison holds.
fn unless(comparison: u32, number: u32, length: usize) -> Vec<sock_filter> {
    match u8::try_from(length) {
        Ok(length) => vec![jump(comparison, number, 0, length)],
        Err(_) => vec![jump(comparison, number, 1, 0), go(length)],
    }
}

/// Translates the rules of one call, one after the other.
fn apply(rules: &Rules, default: Action) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for (conditions, action) in rules {
        // The rule is written from its end: each condition that fails jumps over all that follows it.
        let mut rule = vec![answer(*action)];
        for condition in conditions.iter().rev() {
            let mut tested = check(condition, rule.len());
            tested.extend(rule);
            rule = tested;
        }
        program.extend(rule);
        if conditions.is_empty() {
            return program;
        }
    }
    program.push(answer(default));
    program
}

/// Goes on when the condition holds, and jumps over the next `length` instructions when it doesn't.
/// An argument has 64 bits, and the machine 32: the high half is compared first, then the low one.
fn check(condition: &Condition, length: usize) -> Vec<sock_filter> {
    let low = ARGUMENTS + 8 * condition.index;
    let high = low + 4;
    let halves = |number: u64| ((number >> 32) as u32, number as u32);
    // Conditions are few and short: the distances fit.
    let out = length as u8;
    match condition.test {
        Test::Equal(number) => {
            let (top, bottom) = halves(number);
            vec![
                load(high),
                jump(BPF_JEQ, top, 0, out + 2),
                load(low),
                jump(BPF_JEQ, bottom, 0, out),
            ]
        }
        Test::NotEqual(number) => {
            let (top, bottom) = halves(number);
            vec![
                load(high),
                jump(BPF_JEQ, top, 0, 2),
                load(low),
                jump(BPF_JEQ, bottom, out, 0),
            ]
        }
        Test::Greater(number) => ordered(high, low, halves(number), BPF_JGT, true, out),
        Test::GreaterOrEqual(number) => ordered(high, low, halves(number), BPF_JGE, true, out),
        Test::Less(number) => ordered(high, low, halves(number), BPF_JGE, false, out),
        Test::LessOrEqual(number) => ordered(high, low, halves(number), BPF_JGT, false, out),
        Test::MaskedEqual { mask, bits } => {
            let ((mask_top, mask_bottom), (top, bottom)) = (halves(mask), halves(bits));
            vec![
                load(high),
                and(mask_top),
                jump(BPF_JEQ, top, 0, out + 3),
                load(low),
                and(mask_bottom),
                jump(BPF_JEQ, bottom, 0, out),
            ]
        }
    }
}

/// Greater, or with `wanted` false not greater: the high halves decide unless they are equal.
fn ordered(
    high: u32,
    low: u32,
    (top, bottom): (u32, u32),
    comparison: u32,
    wanted: bool,
    out: u8,
) -> Vec<sock_filter> {
    let (if_greater, if_less) = if wanted { (3, out + 2) } else { (out + 3, 2) };
    let (if_so, if_not) = if wanted { (0, out) } else { (out, 0) };
    vec![
        load(high),
        jump(BPF_JGT, top, if_greater, 0),
        jump(BPF_JEQ, top, 0, if_less),
        load(low),
        jump(comparison, bottom, if_so, if_not),
    ]
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn and(mask: u32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask)
}

fn jump(comparison: u32, number: u32, if_so: u8, if_not: u8) -> sock_filter {
    instruction(BPF_JMP | comparison | BPF_K, if_so, if_not, number)
}

fn go(length: usize) -> sock_filter {
    instruction(BPF_JMP | BPF_JA, 0, 0, length as u32)
}

fn answer(action: Action) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, action)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the kernel would answer: classic BPF, as far as we use it.
    pub(crate) fn run(
        filter: &Filter,
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> Action {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => architecture,
            _ => {
                let argument = arguments[((offset - ARGUMENTS) / 8) as usize];
                (argument >> (offset % 8 * 8)) as u32
            }
        };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter.instructions[at];
            let code = u32::from(code);
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match code & 7 {
                BPF_LD => loaded = word(k),
                BPF_ALU => loaded &= k,
                BPF_RET => return k,
                _ => match code & 0xf0 {
                    BPF_JEQ => branch(loaded == k),
                    BPF_JGT => branch(loaded > k),
                    BPF_JGE => branch(loaded >= k),
                    _ => at += k as usize,
                },
            }
        }
    }

    fn holds(test: Test, argument: u64) -> bool {
        match test {
            Test::Equal(number) => argument == number,
            Test::NotEqual(number) => argument != number,
            Test::Greater(number) => argument > number,
            Test::GreaterOrEqual(number) => argument >= number,
            Test::Less(number) => argument < number,
            Test::LessOrEqual(number) => argument <= number,
            Test::MaskedEqual { mask, bits } => argument & mask == bits,
        }
    }

    #[test]
    fn every_comparison_sees_all_64_bits() {
        let edges = [
            0,
            1,
            5,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 1,
            (5 << 32) | 5,
            u64::MAX - 1,
            u64::MAX,
        ];
        for number in edges {
            for test in [
                Test::Equal(number),
                Test::NotEqual(number),
                Test::Greater(number),
                Test::GreaterOrEqual(number),
                Test::Less(number),
                Test::LessOrEqual(number),
                Test::MaskedEqual {
                    mask: number,
                    bits: number & 0xff_0000_00ff,
                },
            ] {
                let condition = Condition { index: 3, test };
                // A second condition behind it, and a second rule.
                let always = Condition {
                    index: 0,
                    test: Test::Equal(9),
                };
                let rules = vec![(vec![condition, always], 1), (vec![condition], 2)];
                let table = Table {
                    architecture: 7,
                    calls: BTreeMap::from([(4, rules)]),
                    newest: None,
                    from: Vec::new(),
                };
                let filter = compile(&[table], 3, 4).unwrap();
                for argument in edges {
                    for first in [8, 9] {
                        let said = run(&filter, 7, 4, [first, 0, 0, argument, 0, 0]);
                        let wanted = match (holds(test, argument), first) {
                            (true, 9) => 1,
                            (true, _) => 2,
                            (false, _) => 3,
                        };
                        assert_eq!(said, wanted, "{test:x?} {argument:#x} {first}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_number_finds_its_rule_on_every_architecture() {
        let table = |architecture, step: u32| {
            let numbers = (0..400).filter(move |number| number % step != 0);
            let calls = numbers.map(|number| (number, vec![(vec![], 100 + number % 3)]));
            Table {
                architecture,
                calls: calls.collect(),
                newest: None,
                from: vec![(410, 9), (0x4000_0000, 2)],
            }
        };
        let filter = compile(&[table(7, 3), table(8, 5)], 1, 2).unwrap();
        for (architecture, step) in [(7, 3), (8, 5)] {
            for number in (0..420).chain([0x4000_0001, u32::MAX]) {
                let wanted = match number {
                    0x4000_0000.. => 2,
                    410.. => 9,
                    400.. => 1,
                    _ if number % step == 0 => 1,
                    _ => 100 + number % 3,
                };
                assert_eq!(
                    run(&filter, architecture, number, [0; 6]),
                    wanted,
                    "{number}"
                );
            }
        }
        assert_eq!(run(&filter, 9, 1, [0; 6]), 2);
    }

    #[test]
    fn a_program_that_is_too_long_is_refused() {
        let rules = |number| vec![(vec![], number)];
        let calls = (0..5000).map(|number| (number, rules(number))).collect();
        assert!(
            compile(
                &[Table {
                    architecture: 7,
                    calls,
                    newest: None,
                    from: Vec::new()
                }],
                1,
                2
            )
            .is_err()
        );
    }
}
