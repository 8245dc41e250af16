//! How long Vorbis packets are, which only their setup header tells.

use crate::packet::Numbers;

/// Lengths of packets, one after another.
pub(crate) struct Timing {
    /// Samples of short and long blocks.
    blocks: [u32; 2],
    /// Whether blocks of each mode are long.
    modes: Vec<bool>,
    before: Option<u32>,
}

impl Timing {
    /// By the identification header and the setup header behind it.
    pub(crate) fn read(setup: &[u8]) -> Self {
        let sizes = setup.get(28).copied().unwrap_or(0x88);
        let block = |exponent: u8| 1u32 << exponent.clamp(6, 13);
        let modes = setup.get(30..).map(read_modes).unwrap_or_default();
        Self { blocks: [block(sizes & 15), block(sizes >> 4)], modes, before: None }
    }

    /// Samples that decoding the packet gives.
    pub(crate) fn samples(&mut self, packet: &[u8]) -> u32 {
        let Some(&first) = packet.first() else { return 0 };
        let bits = usize::BITS - self.modes.len().saturating_sub(1).leading_zeros();
        let mode = usize::from(first >> 1) & ((1 << bits) - 1);
        let block = self.blocks[usize::from(self.modes.get(mode).copied().unwrap_or(false))];
        // A block overlaps with the one before, and what overlaps is ready.
        let before = self.before.replace(block);
        before.map_or(0, |before| (before + block) / 4)
    }

    /// What comes does not follow what was.
    pub(crate) fn reset(&mut self) {
        self.before = None;
    }
}

/// The modes are at the very end of the setup header: a count, then for each a flag, two numbers of 16 bits that are 0, and
/// a mapping of 8 bits. All before them would have to be understood to read them forward, so they are read backward, as far
/// as what is read can be modes.
fn read_modes(setup: &[u8]) -> Vec<bool> {
    // Bits are written from the lowest of a byte up.
    let bit = |at: usize| setup.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    let number = |at: usize, count: usize| (0..count).fold(0usize, |n, i| n | usize::from(bit(at + i)) << i);
    let Some(last) = (0..setup.len() * 8).rev().find(|&at| bit(at)) else { return Vec::new() };
    let (mut at, mut modes, mut found) = (last, Vec::new(), Vec::new());
    while at >= 41 + 6 && modes.len() < 64 {
        at -= 41;
        let (window, transform, mapping) = (number(at + 1, 16), number(at + 17, 16), number(at + 33, 8));
        if window != 0 || transform != 0 || mapping > 63 {
            break;
        }
        modes.insert(0, bit(at));
        if number(at - 6, 6) + 1 == modes.len() {
            found.clone_from(&modes);
        }
    }
    found
}

/// The headers in Matroska: how many but one there are, their lengths but the last one's, and they themselves. As the
/// decoder takes them: the identification header and the setup header.
pub(crate) fn unlace(private: &[u8]) -> Option<Vec<u8>> {
    if *private.first()? != 2 {
        return None;
    }
    let mut at = 1;
    let mut length = || {
        let mut sum = 0usize;
        loop {
            let byte = *private.get(at)?;
            at += 1;
            sum += usize::from(byte);
            if byte < 255 {
                return Some(sum);
            }
        }
    };
    let (first, second) = (length()?, length()?);
    let identification = private.get(at..at.checked_add(first)?)?;
    let setup = private.get(at.checked_add(first)?.checked_add(second)?..)?;
    identification.le32(12)?;
    Some([identification, setup].concat())
}
