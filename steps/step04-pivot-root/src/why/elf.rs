//! What the kernel and the loader read of an ELF file before they run it. See elf(5).
//!
//! Each number in the file may be a lie: offsets are checked, tables are read up to a limit, and a
//! file that makes no sense is [`None`], never a panic.

use crate::root::{LONGEST_PATH, read_at};
use std::fs::File;

/// An ELF file, as far as starting it goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Elf {
    /// 32 or 64: EI_CLASS.
    pub bits: u8,
    /// The processor: e_machine, such as [`X86_64`].
    pub machine: u16,
    /// The kind of file: e_type, such as [`EXECUTABLE`].
    pub kind: u16,
    /// The loader that it asks for: PT_INTERP. A static program has none.
    pub interpreter: Option<Vec<u8>>,
    /// What the file says to the loader: PT_DYNAMIC.
    pub dynamic: Dynamic,
}

/// What an ELF file says to the loader. See ld.so(8).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// The libraries that it needs: DT_NEEDED.
    pub needed: Vec<Vec<u8>>,
    /// Where to look for the file's libraries, and for theirs: DT_RPATH, directories with `:` between.
    pub rpath: Option<Vec<u8>>,
    /// Where to look for the file's own libraries: DT_RUNPATH.
    pub runpath: Option<Vec<u8>>,
}

/// ET_EXEC: a program with a fixed address.
pub const EXECUTABLE: u16 = 2;
/// ET_DYN: a library, or a program that can lie anywhere.
pub const SHARED: u16 = 3;
/// EM_386.
pub const I386: u16 = 3;
/// EM_ARM.
pub const ARM: u16 = 40;
/// EM_X86_64.
pub const X86_64: u16 = 62;
/// EM_AARCH64.
pub const AARCH64: u16 = 183;

/// The processors whose names a reader may want: e_machine.
const MACHINES: [(u16, &str); 14] = [
    (2, "SPARC"),
    (I386, "i386"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "PowerPC 64"),
    (22, "S/390"),
    (ARM, "ARM"),
    (43, "SPARC 64"),
    (50, "Itanium"),
    (X86_64, "x86-64"),
    (AARCH64, "AArch64"),
    (243, "RISC-V"),
    (247, "BPF"),
    (258, "LoongArch"),
];

/// The name of the processor `machine`.
pub fn machine_name(machine: u16) -> String {
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    known.map_or_else(
        || format!("processor {machine}"),
        |(_, name)| (*name).into(),
    )
}

/// The processor that this program was built for, and the older one whose programs its kernels
/// run too.
pub const THIS_MACHINE: [u16; 2] = if cfg!(target_arch = "aarch64") {
    [AARCH64, ARM]
} else {
    [X86_64, I386]
};

/// The most bytes of program headers: 64 KiB, as many as the kernel reads.
const MOST_HEADERS: usize = 65536;
/// The most entries of the dynamic section that are read.
const MOST_ENTRIES: usize = 4096;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;

const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// A program header: where a piece of the file lies, and where it goes in memory.
struct Header {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

/// How the numbers of an ELF file are laid out.
struct Layout {
    little_endian: bool,
    bits: u8,
}

impl Layout {
    /// The number of `size` bytes at `offset`.
    fn number(&self, bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
        let bytes = bytes.get(offset..offset.checked_add(size)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.little_endian {
            true => bytes.iter().rev().fold(0, append),
            false => bytes.iter().fold(0, append),
        })
    }

    /// The size of an address or an offset.
    fn word(&self) -> usize {
        usize::from(self.bits / 8)
    }
}

impl Elf {
    /// Whether `head`, the first bytes of a file, begins as an ELF file does.
    pub fn is(head: &[u8]) -> bool {
        head.starts_with(b"\x7fELF")
    }

    /// Reads an ELF file; `None` when it is cut off or makes no sense, to which the kernel says
    /// ENOEXEC.
    pub fn read(file: &File) -> Option<Elf> {
        let start = read_at(file, 0, 64);
        if !Elf::is(&start) {
            return None;
        }
        let layout = Layout {
            bits: match start.get(4)? {
                1 => 32,
                2 => 64,
                _ => return None,
            },
            little_endian: match start.get(5)? {
                1 => true,
                2 => false,
                _ => return None,
            },
        };
        let headers = read_headers(file, &layout, &start)?;
        Some(Elf {
            bits: layout.bits,
            kind: layout.number(&start, 16, 2)? as u16,
            machine: layout.number(&start, 18, 2)? as u16,
            interpreter: read_interpreter(file, &headers)?,
            dynamic: read_dynamic(file, &layout, &headers),
        })
    }
}

fn read_headers(file: &File, layout: &Layout, start: &[u8]) -> Option<Vec<Header>> {
    // The two classes have the same fields; from e_entry on, three of them are words.
    let table = layout.number(start, 24 + layout.word(), layout.word())?;
    let sizes = 24 + 3 * layout.word() + 6;
    let size = layout.number(start, sizes, 2)? as usize;
    let count = layout.number(start, sizes + 2, 2)? as usize;
    let [expected, offset, address, length] = match layout.bits {
        64 => [56, 8, 16, 32],
        _ => [32, 4, 8, 16],
    };
    if size != expected || count == 0 || size * count > MOST_HEADERS {
        return None;
    }
    let bytes = read_at(file, table, size * count);
    let header = |bytes: &[u8]| {
        Some(Header {
            kind: layout.number(bytes, 0, 4)?,
            offset: layout.number(bytes, offset, layout.word())?,
            address: layout.number(bytes, address, layout.word())?,
            size: layout.number(bytes, length, layout.word())?,
        })
    };
    if bytes.len() < size * count {
        return None;
    }
    bytes.chunks_exact(size).map(header).collect()
}

/// The loader that the file asks for: `Some(None)` for a static program, `None` for a string that
/// the kernel wouldn't take either.
fn read_interpreter(file: &File, headers: &[Header]) -> Option<Option<Vec<u8>>> {
    let Some(header) = headers.iter().find(|header| header.kind == PT_INTERP) else {
        return Some(None);
    };
    let size = usize::try_from(header.size).ok()?;
    if !(2..=LONGEST_PATH).contains(&size) {
        return None;
    }
    let bytes = read_at(file, header.offset, size);
    if bytes.len() < size || bytes.last() != Some(&0) {
        return None;
    }
    Some(Some(until_nul(bytes)))
}

/// The dynamic section, as far as it makes sense: the kernel doesn't look at it.
fn read_dynamic(file: &File, layout: &Layout, headers: &[Header]) -> Dynamic {
    let mut dynamic = Dynamic::default();
    let Some(header) = headers.iter().find(|header| header.kind == PT_DYNAMIC) else {
        return dynamic;
    };
    let entry = 2 * layout.word();
    let size = (header.size as usize).min(MOST_ENTRIES * entry);
    let entries: Vec<_> = read_at(file, header.offset, size)
        .chunks_exact(entry)
        .filter_map(|bytes| {
            let tag = layout.number(bytes, 0, layout.word())?;
            Some((tag, layout.number(bytes, layout.word(), layout.word())?))
        })
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB);
    let Some(strings) = strings.and_then(|(_, address)| in_file(headers, *address)) else {
        return dynamic;
    };
    let text = |value: u64| {
        let at = strings.checked_add(value)?;
        Some(until_nul(read_at(file, at, LONGEST_PATH)))
    };
    // Of several entries with the same tag the last counts.
    let last = |wanted| entries.iter().rfind(|(tag, _)| *tag == wanted);
    dynamic.rpath = last(DT_RPATH).and_then(|(_, value)| text(*value));
    dynamic.runpath = last(DT_RUNPATH).and_then(|(_, value)| text(*value));
    let needed = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED);
    dynamic.needed = needed.filter_map(|(_, value)| text(*value)).collect();
    dynamic
}

/// Where in the file the memory `address` comes from.
fn in_file(headers: &[Header], address: u64) -> Option<u64> {
    headers
        .iter()
        .filter(|header| header.kind == PT_LOAD)
        .find_map(|header| {
            let within = address.checked_sub(header.address)?;
            (within < header.size).then(|| header.offset.checked_add(within))?
        })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}
