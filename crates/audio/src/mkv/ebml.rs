//! EBML, of which Matroska files are made: elements of an id, a size and a body.

use super::{MAX_ELEMENT, id};
use crate::packet::Numbers;

/// An element's head.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) id: u32,
    /// `None` where it is not known.
    pub(super) size: Option<u64>,
    /// Bytes of the head.
    pub(super) len: u64,
}

impl Head {
    /// Whether it can stand where clusters do.
    pub(super) fn is_known(&self) -> bool {
        let known = [
            id::EBML,
            id::SEGMENT,
            id::INFO,
            id::TRACKS,
            id::CLUSTER,
            id::TIMESTAMP,
            id::SIMPLE_BLOCK,
            id::BLOCK_GROUP,
        ];
        (known.contains(&self.id) || id::OTHERS.contains(&self.id))
            && (self.size.is_some() || matches!(self.id, id::SEGMENT | id::CLUSTER))
            && !(matches!(self.id, id::SIMPLE_BLOCK | id::BLOCK_GROUP | id::TIMESTAMP)
                && self.size.is_some_and(|size| size > MAX_ELEMENT))
    }
}

/// The head that begins here.
pub(super) fn read_head(bytes: &[u8]) -> Option<Head> {
    let first = *bytes.first()?;
    let id_len = first.leading_zeros() as usize + 1;
    if id_len > 4 {
        return None;
    }
    let id = bytes.get(..id_len)?.iter().fold(0, |id, &b| id << 8 | u32::from(b));
    let (size, len) = variable(bytes, id_len)?;
    let unknown = size == (1u64 << (7 * (len - id_len))) - 1;
    Some(Head { id, size: (!unknown).then_some(size), len: len as u64 })
}

/// A number of variable length at a place, and where it ends.
pub(super) fn variable(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let len = first.leading_zeros() as usize + 1;
    if len > 8 {
        return None;
    }
    let value = bytes
        .get(at + 1..at + len)?
        .iter()
        .fold(u64::from(first) & ((1 << (8 - len)) - 1), |v, &b| v << 8 | u64::from(b));
    Some((value, at + len))
}

/// The elements in the body of another; those that end behind it end with it.
pub(super) fn elements(body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = read_head(body.get(at..)?)?;
        let begin = at + head.len as usize;
        let end = head.size.map_or(body.len(), |size| begin.saturating_add(size as usize)).min(body.len());
        at = end;
        Some((head.id, body.get(begin..end)?))
    })
}

pub(super) fn number(body: &[u8]) -> u64 {
    body.iter().take(8).fold(0, |n, &b| n << 8 | u64::from(b))
}

pub(super) fn signed(body: &[u8]) -> i64 {
    let fill = if body.first().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
    body.iter().take(8).fold(fill, |n: i64, &b| n << 8 | i64::from(b))
}

pub(super) fn float(body: &[u8]) -> f64 {
    let value = match body.len() {
        4 => body.be32(0).map_or(0.0, |bits| f64::from(f32::from_bits(bits))),
        8 => body.be64(0).map_or(0.0, f64::from_bits),
        _ => 0.0,
    };
    if value.is_finite() { value } else { 0.0 }
}
