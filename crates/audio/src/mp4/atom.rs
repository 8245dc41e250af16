//! Atoms, of which MP4 and MOV files are made: a size, a kind of four letters, a body.

use crate::packet::Numbers;

/// The head of an atom.
pub(crate) struct Atom {
    pub(crate) kind: [u8; 4],
    /// Bytes with the head; `None` up to the end.
    pub(crate) size: Option<u64>,
    pub(super) head: u64,
}

impl Atom {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let kind = bytes.bytes_at(4)?;
        let (size, head) = match bytes.be32(0)? {
            0 => (None, 8),
            1 => (Some(bytes.be64(8)?), 16),
            size => (Some(u64::from(size)), 8),
        };
        size.is_none_or(|size| size >= head).then_some(Self { kind, size, head })
    }

    /// Bytes behind the head.
    pub(super) fn body(&self) -> Option<u64> {
        Some(self.size? - self.head)
    }
}

/// Whether an atom of the kind may stand at the top.
pub(crate) fn is_top_level(kind: &[u8; 4]) -> bool {
    const KINDS: [&[u8; 4]; 20] = [
        b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"udta", b"uuid", b"meta",
        b"sidx", b"ssix", b"mfra", b"prft", b"emsg", b"pdin", b"PICT", b"junk",
    ];
    KINDS.contains(&kind)
}

/// The atoms in the body of another.
pub(super) fn atoms(body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        let atom = Atom::read(body.get(at..)?)?;
        let begin = at + atom.head as usize;
        let end = atom.size.map_or(body.len(), |size| at.saturating_add(size as usize)).min(body.len());
        at = end.max(at + 8);
        Some((atom.kind, body.get(begin..end)?))
    })
}

/// The body of the first atom of a kind in the body of another.
pub(super) fn find<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    atoms(body).find(|(found, _)| found == kind).map(|(_, body)| body)
}
