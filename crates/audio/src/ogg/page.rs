//! Pages: what Ogg files are made of.

use crate::error::Result;
use crate::frames::is_tag;
use crate::input::Input;
use crate::packet::Numbers;

/// A page that is whole.
pub(super) struct Page {
    pub(super) flags: u8,
    /// The position behind the last packet that ends in it.
    pub(super) granule: u64,
    pub(super) serial: u32,
    pub(super) sequence: u32,
    /// Lengths of the segments, of which packets are made.
    lacing: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// Bytes before it were none of a page.
    pub(super) after_junk: bool,
}

/// Flags: it begins with the rest of a packet; it is the first, or the last, of its stream.
pub(super) const CONTINUED: u8 = 1;
pub(super) const FIRST: u8 = 2;
pub(super) const LAST: u8 = 4;
/// No packet ends in the page.
pub(super) const NO_GRANULE: u64 = u64::MAX;

impl Page {
    /// The next page that is whole. Bytes that are none are read over.
    pub(super) fn read(input: &mut Input) -> Result<Option<Self>> {
        let mut junk = false;
        loop {
            let head = input.peek(27)?;
            if head.is_empty() {
                return Ok(None);
            }
            if !head.starts_with(b"OggS") {
                junk |= head.iter().any(|&b| b != 0) && !is_tag(head);
                let step = head[1..].iter().position(|&b| b == b'O').map_or(head.len(), |at| at + 1) as u64;
                input.skip(step)?;
                continue;
            }
            let segments = head.get(26).map_or(0, |&n| usize::from(n));
            let head = input.peek(27 + segments)?;
            let lacing = head.get(27..27 + segments).unwrap_or(&[]).to_vec();
            let size = 27 + segments + lacing.iter().map(|&n| usize::from(n)).sum::<usize>();
            let page = input.peek(size)?;
            let good = page.len() >= size && lacing.len() == segments && page.le32(22) == Some(checksum(&page[..size]));
            if !good {
                junk = true;
                input.skip(4)?;
                continue;
            }
            let read = Self {
                flags: page[5],
                granule: page.le64(6).unwrap_or(NO_GRANULE),
                serial: page.le32(14).unwrap_or(0),
                sequence: page.le32(18).unwrap_or(0),
                body: page[27 + segments..size].to_vec(),
                lacing,
                after_junk: junk,
            };
            input.skip(size as u64)?;
            return Ok(Some(read));
        }
    }

    /// The packets, and whether each ends in this page.
    pub(super) fn packets(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let (mut at, mut segment) = (0, 0);
        std::iter::from_fn(move || {
            if segment >= self.lacing.len() {
                return None;
            }
            let begin = at;
            loop {
                let Some(&len) = self.lacing.get(segment) else { return Some((&self.body[begin..at], false)) };
                segment += 1;
                at += usize::from(len);
                if len < 255 {
                    return Some((&self.body[begin..at], true));
                }
            }
        })
    }
}

/// The checksum of a page, with its own field taken as 0.
fn checksum(page: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 0x8000_0000 != 0 { value << 1 ^ 0x04c1_1db7 } else { value << 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    page.iter().enumerate().fold(0u32, |sum, (at, &byte)| {
        let byte = if (22..26).contains(&at) { 0 } else { byte };
        sum << 8 ^ TABLE[usize::from((sum >> 24) as u8 ^ byte)]
    })
}
