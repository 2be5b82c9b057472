//! Who is asked about each system call of some kinds, of a process and of all that it starts: seccomp_unotify(2).
//!
//! A call waits until it is decided what comes of it: it goes on, or the kernel is said to refuse it. Meanwhile the
//! world may be changed under its feet, so that haste shows without a clock.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A system call that is about to be made.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who makes it.
    pub pid: Pid,
    /// Its number: `libc::SYS_mount`.
    pub number: libc::c_long,
    /// Its arguments, as numbers and addresses.
    pub arguments: [u64; 6],
    /// The texts that its arguments point to, as far as there are some: `/proc`, `lowerdir=10`. At most 200 bytes each.
    pub texts: [Option<String>; 6],
}

/// What comes of a call.
pub enum Verdict {
    /// The kernel makes it.
    Go,
    /// It fails.
    Fail(Errno),
    /// It isn't made, and returns this.
    Return(i64),
}

type Decide = Box<dyn FnMut(&Call) -> Verdict + Send>;

/// Which calls are asked about, and what is answered.
pub struct Watcher {
    numbers: Vec<libc::c_long>,
    decide: Decide,
}

impl Watcher {
    /// Asks `decide` about the calls with these numbers.
    pub fn new(
        numbers: &[libc::c_long],
        decide: impl FnMut(&Call) -> Verdict + Send + 'static,
    ) -> Watcher {
        Watcher {
            numbers: numbers.into(),
            decide: Box::new(decide),
        }
    }

    /// Lets all go on, and has them recorded in their order.
    pub fn records(numbers: &[libc::c_long]) -> Watcher {
        Watcher::new(numbers, |_| Verdict::Go)
    }

    /// Refuses one call: the one with this number before which there were `earlier` of them.
    pub fn refuses(number: libc::c_long, earlier: usize, errno: Errno) -> Watcher {
        let mut seen = 0;
        Watcher::new(&[number], move |_| {
            seen += 1;
            match seen == earlier + 1 {
                true => Verdict::Fail(errno),
                false => Verdict::Go,
            }
        })
    }

    /// Refuses every call with this number.
    pub fn refuses_all(number: libc::c_long, errno: Errno) -> Watcher {
        Watcher::new(&[number], move |_| Verdict::Fail(errno))
    }

    /// Has the calling process, and all that it starts, ask. Returns the end at which questions come.
    pub(crate) fn install(numbers: &[libc::c_long]) -> Result<OwnedFd, Errno> {
        let statement = |code: u32, k: u32| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: 0,
            k,
        };
        let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
        let answer = |what: u32| statement(libc::BPF_RET | libc::BPF_K, what);
        let mut program = vec![load_number];
        for number in numbers {
            let mut unless_it = statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                u32::try_from(*number).unwrap_or(u32::MAX),
            );
            unless_it.jf = 1;
            program.extend([unless_it, answer(libc::SECCOMP_RET_USER_NOTIF)]);
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the kernel reads as many instructions as there are, and returns a descriptor that nobody else has.
        unsafe {
            let listener = libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const filter,
            );
            Ok(OwnedFd::from_raw_fd(Errno::result(listener)? as i32))
        }
    }

    pub(crate) fn numbers(&self) -> &[libc::c_long] {
        &self.numbers
    }

    /// Answers until nobody can ask any more, or `stop` is at its end. What is asked while it isn't on goes on, and isn't
    /// recorded. Returns the calls in the order in which they came, and whether one was refused.
    pub(crate) fn answer(
        mut self,
        listener: &OwnedFd,
        stop: &OwnedFd,
        is_on: impl Fn() -> bool,
    ) -> Result<(Vec<Call>, bool)> {
        let (mut calls, mut refused) = (Vec::new(), false);
        loop {
            let mut ends = [
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ends, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [asked, stopped] = ends.map(|end| end.revents().unwrap_or(PollFlags::empty()));
            if !asked.contains(PollFlags::POLLIN) {
                if !asked.is_empty() || !stopped.is_empty() {
                    return Ok((calls, refused));
                }
                continue;
            }
            // SAFETY: all zeros are a notification, which the kernel wants to be so and then writes.
            let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: as above.
            let received =
                unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV, &raw mut question) };
            match Errno::result(received) {
                // Who asked was killed meanwhile.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                received => received?,
            };
            let call = is_on().then(|| Call::of(&question));
            let verdict = call
                .as_ref()
                .map_or(Verdict::Go, |call| (self.decide)(call));
            let mut answer = libc::seccomp_notif_resp {
                id: question.id,
                val: 0,
                error: 0,
                flags: 0,
            };
            match verdict {
                Verdict::Go => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
                Verdict::Fail(errno) => answer.error = -(errno as i32),
                Verdict::Return(value) => answer.val = value,
            }
            refused |= answer.flags == 0;
            calls.extend(call);
            // SAFETY: the kernel reads the answer. Who asked may have been killed: nobody misses it then.
            unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND, &raw mut answer) };
        }
    }
}

impl Call {
    fn of(question: &libc::seccomp_notif) -> Call {
        let memory = File::open(format!("/proc/{}/mem", question.pid)).ok();
        let text = |address: u64| -> Option<String> {
            // No text lies in the first page.
            let memory = memory.as_ref().filter(|_| address >= 4096)?;
            let mut bytes = [0; 200];
            let read = memory.read_at(&mut bytes, address).ok()?;
            let end = bytes[..read].iter().position(|byte| *byte == 0)?;
            String::from_utf8(bytes[..end].to_vec()).ok()
        };
        Call {
            pid: Pid::from_raw(question.pid as i32),
            number: question.data.nr.into(),
            arguments: question.data.args,
            texts: question.data.args.map(text),
        }
    }

    /// The text of an argument, the empty one where it is none.
    pub fn text(&self, at: usize) -> &str {
        self.texts[at].as_deref().unwrap_or_default()
    }

    /// The bytes that an argument points to, as long as the call waits; none where there is nothing.
    pub fn bytes(&self, at: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let memory = File::open(format!("/proc/{}/mem", self.pid));
        let read = memory.and_then(|memory| memory.read_exact_at(&mut bytes, self.arguments[at]));
        read.map(|()| bytes).unwrap_or_default()
    }

    /// What a descriptor among the arguments leads to.
    pub fn target(&self, at: usize) -> Result<std::path::PathBuf> {
        let link = format!("/proc/{}/fd/{}", self.pid, self.arguments[at] as i32);
        std::fs::read_link(&link).context(link)
    }
}

// SECCOMP_IOCTL_NOTIF_RECV and _SEND: _IOWR('!', 0 and 1, the struct).
const NOTIF_RECV: libc::c_ulong = request(0, size_of::<libc::seccomp_notif>());
const NOTIF_SEND: libc::c_ulong = request(1, size_of::<libc::seccomp_notif_resp>());

const fn request(number: libc::c_ulong, size: usize) -> libc::c_ulong {
    (3 << 30) | ((size as libc::c_ulong) << 16) | ((b'!' as libc::c_ulong) << 8) | number
}
