//! What kind of audio some bytes are, told by the bytes alone.

use std::io;

use crate::input::Input;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content {
    /// RIFF or RF64 with WAVE in it.
    Wav,
    /// Another container or codec.
    Coded,
    /// Nothing that announces itself in the first bytes; raw samples look like this.
    Unknown,
}

/// Looks at the first bytes, at a few kB at most, and at more than 12 only where they may be an MPEG or AAC stream.
pub(crate) fn sniff(input: &mut Input) -> io::Result<Content> {
    let head = input.peek(12)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(magic));
    if (at(0, b"RIFF") || at(0, b"RF64")) && at(8, b"WAVE") {
        return Ok(Content::Wav);
    }
    let announced = at(0, b"fLaC")
        || at(0, b"OggS")
        || at(0, b"ID3")
        || at(0, b"\x1a\x45\xdf\xa3")
        || at(0, b"caff")
        || at(4, b"ftyp")
        || (at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")));
    let coded = announced || frames_follow(input, mpeg_frame_len)? || frames_follow(input, adts_frame_len)?;
    Ok(if coded { Content::Coded } else { Content::Unknown })
}

/// MPEG and ADTS streams have no magic beyond 11 or 12 set bits, which raw samples near −1 have too: so three frames must
/// follow one another, or fewer up to the very end.
fn frames_follow(input: &mut Input, frame_len: fn(&[u8]) -> Option<usize>) -> io::Result<bool> {
    let mut offset = 0;
    for frame in 0..3 {
        let head = input.peek(offset + 6)?;
        if head.len() < offset + 6 {
            return Ok(frame > 0 && head.len() == offset);
        }
        match frame_len(&head[offset..]) {
            Some(len) => offset += len,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Bytes of the MPEG-1, 2 or 2.5 layer I, II or III frame that begins here.
fn mpeg_frame_len(head: &[u8]) -> Option<usize> {
    // kbit/s by index 1 to 14: MPEG-1 layers I, II, III, MPEG-2 layer I, MPEG-2 layers II and III.
    const KBIT: [[usize; 14]; 5] = [
        [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    if head[0] != 0xff || head[1] & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (head[1] >> 3 & 3, head[1] >> 1 & 3);
    let (kbit_index, rate_index) = (head[2] >> 4, head[2] >> 2 & 3);
    if version == 1 || layer == 0 || !(1..=14).contains(&kbit_index) || rate_index == 3 {
        return None;
    }
    let mpeg1 = version == 3;
    let table = match (mpeg1, layer) {
        (true, 3) => 0,
        (true, 2) => 1,
        (true, _) => 2,
        (false, 3) => 3,
        (false, _) => 4,
    };
    let bits = 1000 * KBIT[table][usize::from(kbit_index) - 1];
    let halvings = [2, 0, 1, 0][usize::from(version)];
    let rate = [44_100, 48_000, 32_000][usize::from(rate_index)] >> halvings;
    let padding = usize::from(head[2] >> 1 & 1);
    Some(match (layer, mpeg1) {
        (3, _) => (12 * bits / rate + padding) * 4,
        (1, false) => 72 * bits / rate + padding,
        _ => 144 * bits / rate + padding,
    })
}

/// Bytes of the ADTS (AAC) frame that begins here.
fn adts_frame_len(head: &[u8]) -> Option<usize> {
    if head[0] != 0xff || head[1] & 0xf6 != 0xf0 || head[2] >> 2 & 15 > 12 {
        return None;
    }
    let len = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5]) >> 5;
    (len > 7).then_some(len)
}
