//! A hostile peer on a channel, made of bytes: messages of every size, with any number of descriptors, control data of other
//! kinds, closed ends. The receiver never keeps more than the limits, keeps no descriptor of what it refuses, and what it
//! gives out is what was sent.
#![no_main]

#[path = "../../tests/support/oracle/dice.rs"]
#[allow(dead_code)]
mod dice;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use dice::Dice;
use libfuzzer_sys::fuzz_target;
use ringfence::Channel;

/// Counts what is asked for, so that a receiver which trusts a length shows.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn open() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

/// What the peer sent: its bytes and how many descriptors, if the kernel took it.
struct Sent {
    bytes: Vec<u8>,
    fds: usize,
}

/// `sendmsg` with control data as the peer likes it.
fn send(peer: &OwnedFd, bytes: &[u8], fds: &[i32], kind: i32) -> bool {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = vec![0_u64; 2 + fds.len().div_ceil(2)];
    control[0] = 16 + 4 * fds.len() as u64;
    control[1] = libc::SOL_SOCKET as u64 | (kind as u64) << 32;
    for (index, fd) in fds.iter().enumerate() {
        control[2 + index / 2] |= u64::from(*fd as u32) << (32 * (index % 2));
    }
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut iov, 1);
    if !fds.is_empty() {
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), control[0] as _);
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    unsafe { libc::sendmsg(peer.as_raw_fd(), &raw const header, flags) >= 0 }
}

fn message(dice: &mut Dice<'_>, peer: &OwnedFd, own: i32) -> Option<Sent> {
    let length = match dice.below(5) {
        0 => dice.below(32),
        1 => Channel::MESSAGE_MAX as u64,
        2 => Channel::MESSAGE_MAX as u64 + 1 + dice.below(1000),
        3 => dice.below(Channel::MESSAGE_MAX as u64),
        _ => 1,
    };
    let bytes: Vec<u8> = dice.take(16).iter().copied().cycle().chain([7; 8]).take(length as usize).collect();
    let bytes = if bytes.is_empty() { vec![9; length as usize] } else { bytes };
    // The kernel takes 253 at most (SCM_MAX_FD).
    let count = [0, 1, 2, 15, 16, 17, 64, 253][dice.below(8) as usize];
    let kind = if dice.one_in(5) { libc::SCM_CREDENTIALS } else { libc::SCM_RIGHTS };
    let taken = send(peer, &bytes, &vec![own; count], kind);
    let fds = if kind == libc::SCM_RIGHTS { count } else { 0 };
    taken.then_some(Sent { bytes, fds })
}

fuzz_target!(|bytes: &[u8]| {
    let mut dice = Dice::new(bytes);
    let before = open();
    {
        let (mine, peer) = Channel::pair().expect("a socket pair");
        let peer = OwnedFd::from(peer);
        mine.set_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        for _ in 0..1 + dice.below(4) {
            let own = peer.as_fd().as_raw_fd();
            let sent = message(&mut dice, &peer, own);
            receive(&mine, sent.as_ref());
        }
        drop(peer);
        let end = mine.receive();
        assert!(matches!(end, Ok(None)), "behind the peer's end: {end:?}");
    }
    assert_eq!(open(), before, "descriptors are left");
});

fn receive(mine: &Channel, sent: Option<&Sent>) {
    let before = open();
    LARGEST.store(0, Relaxed);
    let received = mine.receive();
    let largest = LARGEST.load(Relaxed);
    assert!(largest <= Channel::MESSAGE_MAX, "{largest} bytes at once");
    match (sent, received) {
        (None, Err(error)) => assert_eq!(error.kind(), ErrorKind::TimedOut),
        (Some(sent), Ok(Some(message))) => {
            assert_eq!(message.bytes, sent.bytes);
            assert_eq!(message.fds.len(), sent.fds);
            assert!(sent.bytes.len() <= Channel::MESSAGE_MAX && sent.fds <= Channel::DESCRIPTORS_MAX);
            for fd in &message.fds {
                assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
            }
        }
        (Some(sent), Ok(None)) => assert!(sent.bytes.is_empty(), "a message is no end"),
        (Some(sent), Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            let over = sent.bytes.len() > Channel::MESSAGE_MAX || sent.fds > Channel::DESCRIPTORS_MAX;
            assert!(over, "refused: {error}, {} bytes, {} descriptors", sent.bytes.len(), sent.fds);
        }
        (None, received) => panic!("out of nothing: {received:?}"),
    }
    assert_eq!(open(), before, "a message leaves descriptors");
}
