//! The image: a static ELF with the machine's text in one page and a segment behind it. It must not know what the segment is for.

use super::isa::PROGRESS_SIZE;
use super::layout::{BRIEF_BASE, IMAGE_BASE};
use super::segment::{Bases, Segment};

/// Distance of the two segments: the largest page size that the architecture's kernels use (x86_64 has 4 KiB only).
const fn page(machine: u16) -> u64 {
    if machine == 62 { 4096 } else { 65_536 }
}
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Two words before the text: the table's address, the early progress record's.
const WORDS: usize = 16;
const TEXT_AT: usize = 256;
/// Bytes at the start of the segment's data that belong to the text: the early progress record, and behind it argc, argv
/// and envp as the text's entry leaves them.
pub(crate) const EARLY_SIZE: usize = 64;
/// Offset of argv in the early record.
pub(crate) const EARLY_ARGV: u32 = 32;
/// Offset of envp in the early record.
pub(crate) const EARLY_ENVP: u32 = 40;

const _: () = assert!(HEADER + 3 * PROGRAM_HEADER + WORDS <= TEXT_AT && PROGRESS_SIZE <= 24);

/// Bytes of the text, rounded up to whole pages with the headers before it.
fn text_span(machine: u16, text: &[u8]) -> u64 {
    (TEXT_AT as u64 + text.len() as u64).next_multiple_of(page(machine))
}

/// Where the segments lie when the image runs.
#[must_use]
pub(crate) fn bases(machine: u16, text: &[u8], tail_at: u32) -> Bases {
    Bases {
        image: IMAGE_BASE + text_span(machine, text),
        brief: BRIEF_BASE,
        tail: BRIEF_BASE + u64::from(tail_at),
        window: 0,
    }
}

/// The ELF file: headers and text readable and executable, the segment readable and writable. The segment's data begins
/// with [`EARLY_SIZE`] bytes for the text.
#[must_use]
pub(crate) fn build(machine: u16, text: &[u8], segment: &Segment) -> Vec<u8> {
    let bases = bases(machine, text, 0);
    let span = text_span(machine, text);
    let mut out = Vec::new();
    header(&mut out, machine);
    let size = TEXT_AT as u64 + text.len() as u64;
    program_header(&mut out, [1, 5], [0, IMAGE_BASE, size], page(machine));
    program_header(&mut out, [1, 6], [span, IMAGE_BASE + span, segment.len() as u64], page(machine));
    program_header(&mut out, [0x6474_e551, 6], [0, 0, 0], 16);
    out.resize(TEXT_AT - WORDS, 0);
    out.extend_from_slice(&(bases.image + segment.rows_at() as u64).to_le_bytes());
    out.extend_from_slice(&bases.image.to_le_bytes());
    out.extend_from_slice(text);
    out.resize(usize::try_from(span).unwrap_or(0), 0);
    segment.link(&bases, &mut out);
    out
}

fn header(out: &mut Vec<u8>, machine: u16) {
    out.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2, machine] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    out.extend_from_slice(&1_u32.to_le_bytes());
    for word in [IMAGE_BASE + TEXT_AT as u64, HEADER as u64, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 3, 64, 0, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
}

/// `[type, flags]`, `[offset, address, size]`.
fn program_header(out: &mut Vec<u8>, [kind, flags]: [u32; 2], [offset, address, size]: [u64; 3], align: u64) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    for word in [offset, address, address, size, size, align] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}
