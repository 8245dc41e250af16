//! Streams of MPEG audio and ADTS frames without a container: found wherever they begin, followed through damage and joins.

use crate::error::{Error, Result};
use crate::frames::{Frame, HEADER, Stream, find_chain, is_chain, is_tag};
use crate::input::Input;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};

/// Where the first frame must be found.
const REACH: usize = 64 << 10;
/// Samples that MP3 decoders add before what the encoder was given, beside the encoder's own.
const DECODER_DELAY: u32 = 529;
/// More samples missing at the end than this are missing: encoders differ in whether they count their own padding.
const SLACK: u64 = 2 * 1152;

/// Bytes that begin a tag of lyrics, and those in which its end is looked for.
const LYRICS: u64 = 11;
const MAX_LYRICS: usize = 64 << 10;

pub(crate) struct FrameStream {
    tracks: [Track; 1],
    last: Frame,
    /// Means over the frames so far, to tell how long what is lost was.
    bytes: u64,
    seconds: f64,
    frames: u64,
    info: Option<Info>,
    /// The end of the bytes that belong to it.
    end: u64,
    was_cut: bool,
    /// Nothing was lost so far.
    intact: bool,
    samples: u64,
}

/// The encoder's tag in the first frame.
#[derive(Clone, Copy)]
struct Info {
    frames: Option<u64>,
    delay: u32,
    padding: u32,
}

impl FrameStream {
    /// Finds the first frame, from where `input` is. `bytes` of it belong to the stream, or all.
    pub(crate) fn open(input: &mut Input, bytes: Option<u64>) -> Result<Self> {
        let end = bytes.map_or(u64::MAX, |bytes| input.position().saturating_add(bytes));
        // No more is waited for than it takes; the last has a few frames behind what is in reach.
        let mut found = None;
        for look in [4 << 10, 16 << 10, REACH + (32 << 10)] {
            let head = input.peek(look)?;
            let ended = head.len() < look;
            found = find_chain(head, REACH, ended).or_else(|| {
                // A file of one frame.
                Frame::at(head).filter(|frame| ended && frame.len <= head.len() + 4).map(|frame| (0, frame))
            });
            if found.is_some() || ended {
                break;
            }
        }
        let (at, first) = found.ok_or(Error::UnknownFormat)?;
        input.skip(at as u64)?;
        let format = format_of(&first);
        let mut stream = Self {
            tracks: [Track { format, default: true }],
            last: first,
            bytes: 0,
            seconds: 0.0,
            frames: 0,
            info: None,
            end,
            was_cut: false,
            intact: true,
            samples: 0,
        };
        stream.read_info(input)?;
        Ok(stream)
    }

    /// The encoder's tag, which is in a frame of silence before all others.
    fn read_info(&mut self, input: &mut Input) -> Result<()> {
        if self.last.stream != Stream::Mpeg(3) {
            return Ok(());
        }
        let len = self.last.len;
        let head = input.peek(len)?;
        let frame = &head[..len.min(head.len())];
        if let Some(info) = info_tag(frame, &self.last) {
            self.info = Some(info);
            input.skip(len as u64)?;
        }
        Ok(())
    }

    /// Whether a frame begins here that can be believed: as the last one, or followed by one as itself.
    fn frame_here(&mut self, input: &mut Input) -> Result<Option<Frame>> {
        let head = input.peek(HEADER)?;
        let Some(frame) = Frame::at(head) else { return Ok(None) };
        let known = frame.agrees(&self.last) && frame.channels == self.last.channels;
        if !matches!(frame.stream, Stream::Mpeg(_) | Stream::Adts) {
            return Ok(None);
        }
        Ok((known || is_followed(input, &frame)?).then_some(frame))
    }

    /// Reads over what is no frame; how many bytes, whether they are but filling, and whether nothing follows.
    fn resync(&mut self, input: &mut Input) -> Result<(u64, bool, bool)> {
        let (mut skipped, mut harmless) = (0, true);
        loop {
            if input.position() >= self.end {
                return Ok((skipped, harmless, true));
            }
            let mut head = [0; 32];
            let held = input.peek(32)?;
            let count = held.len().min(32);
            head[..count].copy_from_slice(&held[..count]);
            let head = &head[..count];
            if head.is_empty() {
                return Ok((skipped, harmless, true));
            }
            if skipped == 0 || harmless {
                let tag = match tag_len(head) {
                    LYRICS => lyrics_len(input.peek(MAX_LYRICS)?),
                    len => len,
                };
                if tag > 0 {
                    // What a tag says of its length is not to cost the frames behind it.
                    let after = input.position() + tag;
                    if input.len().is_none_or(|len| after <= len) {
                        input.skip(tag)?;
                        continue;
                    }
                }
            }
            if let Some(frame) = Frame::at(head)
                && matches!(frame.stream, Stream::Mpeg(_) | Stream::Adts)
                && is_followed(input, &frame)?
            {
                return Ok((skipped, harmless, false));
            }
            let head = input.peek(1)?;
            harmless &= head.first().is_some_and(|byte| matches!(byte, 0 | 0xff | b'\r' | b'\n'));
            skipped += input.skip(1)?;
        }
    }

    /// Seconds that so many bytes would have been.
    fn seconds_of(&self, bytes: u64) -> f64 {
        if self.frames == 0 {
            return 0.0;
        }
        let (frame_bytes, frame_s) = (self.bytes as f64 / self.frames as f64, self.seconds / self.frames as f64);
        (bytes as f64 / frame_bytes).round() * frame_s
    }

    /// What of the frame is to be heard, by the encoder's tag.
    fn span(&self, frame: &Frame) -> Span {
        let Some(info) = self.info.filter(|info| info.delay > 0) else { return Span::NEXT };
        let rate = f64::from(frame.rate);
        let skip = f64::from(info.delay + DECODER_DELAY) / rate;
        let until = match info.frames {
            // The padding is counted from the end of the last frame, and the decoder's delay is in it.
            Some(frames) if info.padding > DECODER_DELAY => {
                (frames * u64::from(frame.samples)) as f64 / rate
                    - skip
                    - f64::from(info.padding - DECODER_DELAY) / rate
            }
            _ => f64::INFINITY,
        };
        if self.samples == 0 {
            return Span { start: Some(-skip), from: 0.0, until };
        }
        // Damage may have moved what follows, and else only the end of the last frames is trimmed.
        let last = self.intact
            && info
                .frames
                .is_some_and(|frames| self.samples + 3 * u64::from(frame.samples) >= frames * u64::from(frame.samples));
        Span { until: if last { until } else { f64::INFINITY }, ..Span::NEXT }
    }

    fn ended(&mut self) -> Event {
        // Once.
        let info = self.info.take();
        let frame_seconds = f64::from(self.last.samples) / f64::from(self.last.rate.max(1));
        if let Some(frames) = info.and_then(|info| info.frames) {
            let promised = frames * u64::from(self.last.samples);
            if promised > self.samples + SLACK {
                let seconds = (promised - self.samples) as f64 / f64::from(self.last.rate);
                return Event::Lost { seconds, what: "cut off: the header promises more frames" };
            }
        }
        if std::mem::take(&mut self.was_cut) {
            return Event::Lost { seconds: frame_seconds, what: "cut off in the middle of a frame" };
        }
        Event::End
    }
}

impl Container for FrameStream {
    fn name(&self) -> &'static str {
        match self.last.stream {
            Stream::Adts => "ADTS",
            _ => "MPEG audio",
        }
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, _track: usize) -> Result<()> {
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        let samples = self.info?.frames? * u64::from(self.last.samples);
        Some(samples as f64 / f64::from(self.last.rate.max(1)))
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        loop {
            if input.position() >= self.end {
                return Ok(self.ended());
            }
            let Some(frame) = self.frame_here(input)? else {
                let (skipped, harmless, ended) = self.resync(input)?;
                let seconds = self.seconds_of(skipped);
                if skipped > 0
                    && !(harmless && ended)
                    && self.frames > 0
                    && (!ended || skipped as usize >= self.last.len)
                {
                    self.intact = false;
                    self.samples += (seconds * f64::from(self.last.rate)).round() as u64;
                    return Ok(Event::Lost { seconds, what: "bytes that are no frames" });
                }
                if !ended {
                    continue;
                }
                // Less than a header is what is left of a frame.
                self.was_cut |= skipped > 0 && !harmless;
                return Ok(self.ended());
            };
            if format_of(&frame) != format_of(&self.last) {
                self.last = frame;
                (self.bytes, self.seconds, self.frames) = (0, 0.0, 0);
                self.info = None;
                // A stream that was joined to another has its own tag.
                self.read_info(input)?;
                self.info = None;
                return Ok(Event::Format(format_of(&frame)));
            }
            input.take(frame.len, packet)?;
            if packet.len() < frame.len {
                self.was_cut = true;
                return Ok(self.ended());
            }
            if self.frames > 0 && frame.stream == Stream::Mpeg(3) && info_tag(packet, &frame).is_some() {
                // Where files were joined.
                self.info = None;
                continue;
            }
            let seconds = f64::from(frame.samples) / f64::from(frame.rate);
            self.bytes += frame.len as u64;
            self.seconds += seconds;
            self.frames += 1;
            let span = self.span(&frame);
            self.samples += u64::from(frame.samples);
            self.last = frame;
            packet.drain(..frame.header.min(packet.len()));
            return Ok(Event::Packet { span, seconds });
        }
    }
}

/// Whether another such frame follows the one here, or the end does.
fn is_followed(input: &mut Input, frame: &Frame) -> Result<bool> {
    let reach = 2 * frame.len + HEADER;
    let head = input.peek(reach)?;
    let ended = head.len() < reach;
    Ok(is_chain(head, 0, frame, 3, ended) || ended && head.len() == frame.len)
}

/// What decoders need to know; without what may change from frame to frame.
fn format_of(frame: &Frame) -> Format {
    match frame.stream {
        Stream::Mpeg(layer) => Format::new(Codec::Mpeg(layer), frame.rate, frame.channels),
        Stream::Adts if frame.samples != 1024 => Format::other("AAC with several blocks in a frame"),
        Stream::Adts if frame.channels == 0 => Format::other("AAC with its own channel layout"),
        Stream::Adts => Format::new(Codec::Aac, frame.rate, frame.channels),
        Stream::Loas => Format::other("AAC in LOAS"),
        Stream::Ac3 => Format::other("AC-3"),
    }
}

/// Bytes of the tag that begins here.
fn tag_len(head: &[u8]) -> u64 {
    if !is_tag(head) {
        return 0;
    }
    match head {
        [b'T', b'A', b'G', ..] => 128,
        [b'A', b'P', b'E', ..] => head.le32(12).map_or(32, |size| 32 + u64::from(size)),
        [b'I', b'D', b'3', ..] => id3_len(head).unwrap_or(10),
        [b'L', ..] => LYRICS,
        _ => 3,
    }
}

/// Bytes of the tag of lyrics that begins here, which says at its end where that is.
fn lyrics_len(bytes: &[u8]) -> u64 {
    let ends = |window: &[u8]| matches!(window, b"LYRICS200" | b"LYRICSEND");
    let end = bytes.windows(9).take(MAX_LYRICS).position(ends);
    end.map_or(LYRICS, |end| end as u64 + 9)
}

/// Bytes of the ID3v2 tag that begins here.
pub(crate) fn id3_len(head: &[u8]) -> Option<u64> {
    if !head.starts_with(b"ID3") || head.len() < 10 || head[6..10].iter().any(|&b| b & 0x80 != 0) {
        return None;
    }
    let size = head[6..10].iter().fold(0u64, |size, &b| size << 7 | u64::from(b));
    let footer = if head[5] & 0x10 != 0 { 10 } else { 0 };
    Some(10 + size + footer)
}

/// A Xing, Info or VBRI tag in an MP3 frame.
fn info_tag(frame: &[u8], header: &Frame) -> Option<Info> {
    let mpeg1 = header.samples == 1152;
    let side = match (mpeg1, header.channels) {
        (true, 1) | (false, 2) => 17,
        (true, _) => 32,
        (false, _) => 9,
    };
    // A checksum may come before the side information.
    let at = [4 + side, 6 + side].into_iter().find(|&at| matches!(frame.get(at..at + 4), Some(b"Xing" | b"Info")));
    let Some(at) = at else {
        let frames = (frame.get(36..40)? == b"VBRI").then(|| frame.be32(50))??;
        return Some(Info { frames: Some(u64::from(frames)), delay: 0, padding: 0 });
    };
    let flags = frame.be32(at + 4)?;
    let frames = if flags & 1 != 0 { frame.be32(at + 8).map(u64::from) } else { None };
    let sizes = [(1, 4), (2, 4), (4, 100), (8, 4)];
    let extension = at + 8 + sizes.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, size)| size).sum::<usize>();
    let gaps = frame.get(extension + 21..extension + 24);
    let (delay, padding) = match gaps {
        Some(&[a, b, c]) if frame.get(extension).is_some_and(u8::is_ascii_alphabetic) => {
            (u32::from(a) << 4 | u32::from(b) >> 4, u32::from(b & 15) << 8 | u32::from(c))
        }
        _ => (0, 0),
    };
    Some(Info { frames, delay, padding })
}
