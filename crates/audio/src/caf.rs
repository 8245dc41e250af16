//! CAF, Apple's: plain samples, and packets by their table.

use crate::aac;
use crate::error::{Error, Result, check_channels};
use crate::input::Input;
use crate::opus;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};
use crate::pcm::{PcmFormat, PcmStart, SampleFormat};

/// Larger tables are not believed.
const MAX_TABLE: u64 = 64 << 20;
const MAX_PACKET: u64 = 8 << 20;

/// What a CAF file holds.
pub(crate) enum Opened {
    Pcm(PcmStart),
    Packets(Box<Caf>),
}

pub(crate) struct Caf {
    tracks: [Track; 1],
    /// Samples per channel of a packet, 0 where the table has them.
    per_packet: u32,
    /// Bytes of a packet, 0 where the table has them.
    size: u32,
    table: Vec<u8>,
    /// Into the table.
    at: usize,
    packets_left: u64,
    /// Samples per channel that are heard, and those before them.
    valid: Option<u64>,
    priming: u64,
    samples: u64,
    data_end: Option<u64>,
    ended: bool,
}

pub(crate) fn open(input: &mut Input) -> Result<Opened> {
    input.skip(8)?;
    let (mut description, mut cookie, mut table, mut data) = (None, Vec::new(), None, None);
    loop {
        let head = input.peek(12)?;
        let (Some(id), Some(size)) = (head.bytes_at::<4>(0), head.be64(4)) else { break };
        let size = size as i64;
        if id == *b"data" {
            input.skip(16)?;
            // Of writers that cannot go back, −1 or nothing at all.
            let size = u64::try_from(size).ok().filter(|&size| size > 0);
            data = Some((input.position(), size.map(|size| size.saturating_sub(4))));
            let Some((_, Some(len))) = data else { break };
            let plain = description.as_deref().is_some_and(is_plain);
            if plain || table.is_some() {
                break;
            }
            if input.len().is_none() {
                // The table is behind the packets that it is needed for.
                if !input.restart()? {
                    return Err(Error::Corrupt("CAF with its table behind the packets"));
                }
                input.spool()?;
                return open(input);
            }
            if input.skip(len)? < len {
                break;
            }
            continue;
        }
        let size = u64::try_from(size).map_err(|_| Error::Corrupt("a CAF chunk of unknown size"))?;
        input.skip(12)?;
        let mut keep = |most| -> Result<Vec<u8>> {
            let mut body = Vec::new();
            input.take(size.min(most) as usize, &mut body)?;
            input.skip(size - size.min(most))?;
            Ok(body)
        };
        match &id {
            b"desc" => description = Some(keep(MAX_TABLE)?),
            b"kuki" => cookie = keep(MAX_TABLE)?,
            b"pakt" => table = Some(keep(MAX_TABLE)?),
            _ => {
                if input.skip(size)? < size {
                    break;
                }
            }
        }
    }
    let description = description.ok_or(Error::Corrupt("a CAF file without its format"))?;
    let (start, len) = data.ok_or(Error::NoSamples)?;
    let (format, size, per_packet) = read_description(&description, &cookie)?;
    if let Codec::Pcm(format) = format.codec {
        let found = input.seek(start)?;
        return if found { Ok(Opened::Pcm(PcmStart { format, offset: 0, bytes: len })) } else { Err(Error::NoSamples) };
    }
    let table = table.unwrap_or_default();
    let packets = if size != 0 && per_packet != 0 {
        u64::MAX
    } else {
        table.be64(0).ok_or(Error::Corrupt("a CAF file without its table of packets"))?
    };
    let valid = table.be64(8).filter(|&samples| samples > 0 && samples < 1 << 50);
    let priming = table.be32(16).map_or(0, |samples| u64::from(samples) & 0xff_ffff);
    if !input.seek(start)? {
        return Err(Error::NoSamples);
    }
    Ok(Opened::Packets(Box::new(Caf {
        tracks: [Track { format, default: true }],
        per_packet,
        size,
        table,
        at: 24,
        packets_left: packets,
        valid,
        priming,
        samples: 0,
        data_end: len.map(|len| start.saturating_add(len)),
        ended: false,
    })))
}

fn is_plain(description: &[u8]) -> bool {
    matches!(description.get(8..12), Some(b"lpcm" | b"ulaw" | b"alaw"))
}

/// Format, bytes and samples of a packet.
fn read_description(body: &[u8], cookie: &[u8]) -> Result<(Format, u32, u32)> {
    let fields = (|| {
        let rate = body.be64(0).map(f64::from_bits)?;
        Some((
            rate,
            body.bytes_at::<4>(8)?,
            body.be32(12)?,
            body.be32(16)?,
            body.be32(20)?,
            body.be32(24)?,
            body.be32(28)?,
        ))
    })();
    let Some((rate, kind, flags, size, per_packet, channels, bits)) = fields else {
        return Err(Error::Corrupt("a CAF file without its format"));
    };
    let rate = rate.clamp(0.0, 1e9) as u32;
    let channels = check_channels(channels as usize)?;
    let law = |sample| PcmFormat { sample, big_endian: false, signed_byte: false, rate, channels };
    let plain = |codec| Format::new(codec, rate, channels);
    let format = match &kind {
        b"lpcm" => {
            let bytes = if size as usize / channels > 0 { size as usize / channels } else { bits.div_ceil(8) as usize };
            let pcm = PcmFormat::of(bytes, flags & 1 != 0, flags & 2 == 0, rate, channels);
            pcm.map(|pcm| plain(Codec::Pcm(PcmFormat { signed_byte: true, ..pcm })))
        }
        b"ulaw" => Some(plain(Codec::Pcm(law(SampleFormat::MuLaw)))),
        b"alaw" => Some(plain(Codec::Pcm(law(SampleFormat::ALaw)))),
        // The cookie may still be wrapped as in QuickTime.
        b"alac" => {
            let wrapped = cookie.windows(4).take(32).rposition(|kind| kind == b"alac");
            let setup = wrapped.map_or(cookie, |at| cookie.get(at + 8..).unwrap_or(&[]));
            Some(Format { setup: setup.to_vec(), ..plain(Codec::Alac) })
        }
        b"aac " | b"aach" | b"aacp" => {
            // The cookie is an elementary stream descriptor; its AudioSpecificConfig follows tag 5.
            let config = cookie.windows(2).position(|w| w[0] == 5 && w[1] < 0x80 || w == [5, 0x80]).and_then(|at| {
                let skip = cookie[at + 1..].iter().position(|b| b & 0x80 == 0)?;
                cookie.get(at + 2 + skip..)
            });
            Some(config.map_or_else(|| plain(Codec::Aac), aac::format))
        }
        b".mp3" => Some(plain(Codec::Mpeg(3))),
        b".mp2" => Some(plain(Codec::Mpeg(2))),
        b"opus" => Some(Format { rate: opus::RATE, ..plain(Codec::Opus) }),
        b"ima4" => Some(Format::other("IMA ADPCM of QuickTime")),
        _ => None,
    };
    Ok((format.unwrap_or_else(|| Format::other(kind.escape_ascii().to_string())), size, per_packet))
}

impl Caf {
    /// A number of the table: seven bits a byte, the highest bit of all but the last one set.
    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for _ in 0..9 {
            let byte = *self.table.get(self.at)?;
            self.at += 1;
            value = value << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Container for Caf {
    fn name(&self) -> &'static str {
        "CAF"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, _track: usize) -> Result<()> {
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        Some(self.valid? as f64 / f64::from(self.tracks[0].format.rate.max(1)))
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        let rate = f64::from(self.tracks[0].format.rate.max(1));
        let heard = (self.samples as f64 - self.priming as f64) / rate;
        let missing = self.valid.map_or(0.0, |valid| (valid as f64 / rate - heard).max(0.0));
        let cut = |this: &mut Self| {
            let first = !std::mem::replace(&mut this.ended, true);
            if first { Event::Lost { seconds: missing, what: "cut off" } } else { Event::End }
        };
        if self.ended || self.packets_left == 0 || self.data_end.is_some_and(|end| input.position() >= end) {
            return Ok(Event::End);
        }
        self.packets_left -= 1;
        let size = if self.size == 0 { self.number() } else { Some(u64::from(self.size)) };
        let samples = if self.per_packet == 0 { self.number() } else { Some(u64::from(self.per_packet)) };
        let (Some(size), Some(samples)) = (size.filter(|&size| size <= MAX_PACKET), samples) else {
            return Ok(cut(self));
        };
        if input.peek(1)?.is_empty() {
            return Ok(if self.size != 0 && missing == 0.0 { Event::End } else { cut(self) });
        }
        input.take(size as usize, packet)?;
        if (packet.len() as u64) < size {
            return Ok(cut(self));
        }
        // Opus counts in its own rate.
        let scale = if self.tracks[0].format.codec == Codec::Opus {
            opus::samples_of(packet).unwrap_or(0) as u64
        } else {
            samples
        };
        let until = self.valid.map_or(f64::INFINITY, |valid| valid as f64 / rate);
        self.samples = self.samples.saturating_add(scale);
        Ok(Event::Packet { span: Span { start: Some(heard), from: 0.0, until }, seconds: scale as f64 / rate })
    }
}
