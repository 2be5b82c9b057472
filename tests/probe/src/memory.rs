//! A page that a process shares with its children, which stays whatever these close, unmount or leave.

use anyhow::Result;
use std::sync::atomic::{AtomicU32, Ordering};

const SIZE: usize = 1 << 20;

/// Shared memory: a number that one side sets and the other waits for, and room for a text.
#[derive(Clone, Copy)]
pub struct Memory(*mut u8);

// SAFETY: the words in front are atomic, and the text has one writer, who is through before it says so by them.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new() -> Result<Memory> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping, at no address of anybody's.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, kind, -1, 0) };
        match place {
            libc::MAP_FAILED => Err(std::io::Error::last_os_error().into()),
            place => Ok(Memory(place.cast())),
        }
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the mapping is aligned to a page, and larger than the words in front.
        unsafe { &*self.0.cast::<AtomicU32>().add(index) }
    }

    /// How far the other side is.
    pub fn turn(&self) -> u32 {
        self.word(0).load(Ordering::Acquire)
    }

    /// Says how far this side is.
    pub fn set_turn(&self, turn: u32) {
        self.word(0).store(turn, Ordering::Release);
        // SAFETY: the word is there for as long as the process.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word(0).as_ptr(),
                libc::FUTEX_WAKE,
                i32::MAX,
            );
        }
    }

    /// Waits until somebody has set another turn than `turn`, for 20 ms at most.
    pub fn wait_while(&self, turn: u32) {
        let moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        // SAFETY: as above; the time is read at once.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word(0).as_ptr(),
                libc::FUTEX_WAIT,
                turn,
                &raw const moment,
            );
        }
    }

    /// Leaves a text for the other side.
    pub fn write(&self, text: &[u8]) {
        let length = text.len().min(SIZE - 64);
        // SAFETY: the text's room begins behind the words, and the length is within it.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.0.add(64), length) };
        self.word(1).store(length as u32, Ordering::Release);
    }

    /// The text that the other side has left.
    pub fn read(&self) -> Vec<u8> {
        let length = self.word(1).load(Ordering::Acquire) as usize;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.0.add(64), length) }.to_vec()
    }

    /// One of eight numbers that closures on the other side may set: their own notes.
    pub fn note(&self, index: usize) -> &AtomicU32 {
        self.word(4 + index % 8)
    }
}
