//! AAC as its AudioSpecificConfig describes it, which all containers but ADTS have.

use crate::packet::{Codec, Format};

/// Sample rates by their index.
pub(crate) const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// What an AudioSpecificConfig says. High-efficiency AAC is read as what its plain half is: AAC-LC at half the rate, which
/// has all that is below a quarter of the full one.
pub(crate) fn format(config: &[u8]) -> Format {
    let mut at = 0;
    let mut bits = |count: usize| {
        let value = (0..count).fold(0u32, |value, i| {
            let bit = config.get((at + i) / 8).map_or(0, |byte| byte >> (7 - (at + i) % 8) & 1);
            value << 1 | u32::from(bit)
        });
        at += count;
        value
    };
    let mut object = bits(5);
    if object == 31 {
        object = 32 + bits(6);
    }
    let rate = |bits: &mut dyn FnMut(usize) -> u32| match bits(4) {
        15 => bits(24),
        index => RATES.get(index as usize).copied().unwrap_or(0),
    };
    let core_rate = rate(&mut bits);
    let channels = bits(4);
    if object == 5 || object == 29 {
        rate(&mut bits);
        object = bits(5);
    }
    let short = bits(1) == 1;
    match (object, channels) {
        (2, 0) => Format::other("AAC with its own channel layout"),
        (2, 1..=2) if !short => Format::new(Codec::Aac, core_rate, channels as usize),
        (2, _) if short => Format::other("AAC in frames of 960"),
        (2, channels) => Format::other(format!("AAC of {} channels", channel_count(channels))),
        (1, _) => Format::other("AAC Main"),
        (3 | 4, _) => Format::other("AAC SSR or LTP"),
        (23, _) => Format::other("AAC-LD"),
        (39, _) => Format::other("AAC-ELD"),
        (42, _) => Format::other("xHE-AAC"),
        (object, _) => Format::other(format!("MPEG-4 audio object {object}")),
    }
}

/// Channels of a configuration.
fn channel_count(configuration: u32) -> u32 {
    match configuration {
        7 | 12 | 14 => 8,
        11 => 7,
        n => n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_specific_configs() {
        assert_eq!(format(&[0x12, 0x10]), Format::new(Codec::Aac, 44_100, 2));
        // Explicit HE-AAC: object 5, 24 kHz, stereo, 48 kHz, object 2.
        assert_eq!(format(&[0x2b, 0x11, 0x88, 0x00]), Format::new(Codec::Aac, 24_000, 2));
        assert!(matches!(format(&[0x12, 0x30]).codec, Codec::Other(_)));
        assert!(matches!(format(&[]).codec, Codec::Other(_)));
    }
}
