//! Matroska and WebM: blocks of the clusters, with their times.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::flac;
use crate::input::Input;
use crate::mp4::aac_format;
use crate::opus;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};
use crate::pcm::PcmFormat;
use crate::vorbis;
use crate::wav;

/// Larger elements are not read whole.
const MAX_ELEMENT: u64 = 16 << 20;
/// Times are rounded by less than this.
const ROUNDED_S: f64 = 0.02;
/// What is looked at to find the next element behind damage.
const RESYNC: usize = 64 << 10;
/// What is read in search of the tracks.
const MAX_HEADER: u64 = 256 << 20;

mod id {
    pub const EBML: u32 = 0x1a45_dfa3;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const INFO: u32 = 0x1549_a966;
    pub const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
    pub const DURATION: u32 = 0x4489;
    pub const TRACKS: u32 = 0x1654_ae6b;
    pub const TRACK_ENTRY: u32 = 0xae;
    pub const TRACK_NUMBER: u32 = 0xd7;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const FLAG_DEFAULT: u32 = 0x88;
    pub const FLAG_ENABLED: u32 = 0xb9;
    pub const DEFAULT_DURATION: u32 = 0x23_e383;
    pub const CODEC_ID: u32 = 0x86;
    pub const CODEC_PRIVATE: u32 = 0x63a2;
    pub const CODEC_DELAY: u32 = 0x56aa;
    pub const AUDIO: u32 = 0xe1;
    pub const SAMPLING_FREQUENCY: u32 = 0xb5;
    pub const CHANNELS: u32 = 0x9f;
    pub const BIT_DEPTH: u32 = 0x6264;
    pub const ENCODINGS: u32 = 0x6d80;
    pub const ENCODING: u32 = 0x6240;
    pub const COMPRESSION: u32 = 0x5034;
    pub const COMPRESSION_ALGORITHM: u32 = 0x4254;
    pub const COMPRESSION_SETTINGS: u32 = 0x4255;
    pub const ENCRYPTION: u32 = 0x5035;
    pub const CLUSTER: u32 = 0x1f43_b675;
    pub const TIMESTAMP: u32 = 0xe7;
    pub const SIMPLE_BLOCK: u32 = 0xa3;
    pub const BLOCK_GROUP: u32 = 0xa0;
    pub const BLOCK: u32 = 0xa1;
    pub const DISCARD_PADDING: u32 = 0x75a2;
    /// What else stands at the top of a segment, or in a cluster.
    pub const OTHERS: [u32; 11] =
        [0x114d_9b74, 0x1c53_bb6b, 0x1043_a770, 0x1254_c367, 0x1941_a469, 0xec, 0xbf, 0xa7, 0xab, 0x5854, 0xaf];
}

pub(crate) struct Mkv {
    tracks: Vec<Track>,
    entries: Vec<Entry>,
    chosen: usize,
    /// Nanoseconds of a tick.
    scale: u64,
    duration: Option<f64>,
    /// Where the segment ends, where its header says so.
    segment_end: Option<u64>,
    /// Ticks.
    cluster: i64,
    queue: VecDeque<(Vec<u8>, Span, f64)>,
    broken: bool,
    /// Seconds that bytes that were read over may have been, where the time of their cluster may be lost too.
    adrift: Option<f64>,
    ended: bool,
    /// Where the last packet ended, in seconds.
    end: f64,
}

/// What is known of a track beside its format.
#[derive(Clone, Debug, Default)]
struct Entry {
    number: u64,
    /// Seconds of a frame.
    frame: Option<f64>,
    delay: f64,
    /// Bytes that were taken from the beginning of each frame.
    stripped: Vec<u8>,
}

/// An element's head.
#[derive(Clone, Copy)]
struct Head {
    id: u32,
    /// `None` where it is not known.
    size: Option<u64>,
    /// Bytes of the head.
    len: u64,
}

impl Mkv {
    pub(crate) fn open(input: &mut Input) -> Result<Self> {
        let mut mkv = Self {
            tracks: Vec::new(),
            entries: Vec::new(),
            chosen: 0,
            scale: 1_000_000,
            duration: None,
            segment_end: None,
            cluster: 0,
            queue: VecDeque::new(),
            broken: false,
            adrift: None,
            ended: false,
            end: 0.0,
        };
        let mut body = Vec::new();
        while input.position() < MAX_HEADER {
            let Some(head) = mkv.head(input)? else { break };
            if head.id == id::CLUSTER && !mkv.tracks.is_empty() {
                break;
            }
            input.skip(head.len)?;
            match (head.id, head.size) {
                (id::SEGMENT, size) => mkv.segment_end = size.map(|size| input.position().saturating_add(size)),
                (id::INFO, Some(size)) if size <= MAX_ELEMENT => {
                    input.take(size as usize, &mut body)?;
                    mkv.read_info(&body);
                }
                (id::TRACKS, Some(size)) if size <= MAX_ELEMENT => {
                    input.take(size as usize, &mut body)?;
                    mkv.read_tracks(&body);
                }
                (_, Some(size)) => {
                    if input.skip(size)? < size {
                        break;
                    }
                }
                (_, None) => {}
            }
        }
        if mkv.tracks.is_empty() { Err(Error::NoTrack) } else { Ok(mkv) }
    }

    /// The head of the element here.
    fn head(&mut self, input: &mut Input) -> Result<Option<Head>> {
        Ok(read_head(input.peek(12)?))
    }

    fn read_info(&mut self, body: &[u8]) {
        for (id, body) in elements(body) {
            match id {
                id::TIMESTAMP_SCALE => self.scale = number(body).clamp(1, 1_000_000_000),
                id::DURATION => self.duration = Some(float(body)).filter(|ticks| *ticks > 0.0),
                _ => {}
            }
        }
        self.duration = self.duration.map(|ticks| ticks * self.scale as f64 / 1e9);
    }

    fn read_tracks(&mut self, body: &[u8]) {
        for (id, body) in elements(body) {
            if id == id::TRACK_ENTRY
                && let Some((track, entry)) = read_track(body)
            {
                self.tracks.push(track);
                self.entries.push(entry);
            }
        }
    }

    /// Takes the frames of a block of the chosen track.
    fn take_block(&mut self, block: &[u8], discard_s: f64) {
        let Some((number, at)) = variable(block, 0) else { return };
        let entry = &self.entries[self.chosen];
        let (Some(time), Some(&flags)) = (block.be16(at), block.get(at + 2)) else { return };
        if number != entry.number {
            return;
        }
        let Some(frames) = frames(&block[at + 3..], flags >> 1 & 3) else {
            self.broken = true;
            return;
        };
        let ticks = self.cluster.saturating_add(i64::from(time as i16));
        let mut start = ticks as f64 * self.scale as f64 / 1e9 - entry.delay;
        let count = frames.len();
        // Blocks whose cluster's head is lost seem to be of the cluster before: its time is an estimate then.
        if let Some(lost) = self.adrift.take()
            && start < self.end - ROUNDED_S
        {
            let ahead = self.end + lost - start;
            self.cluster = self.cluster.saturating_add((ahead * 1e9 / self.scale as f64) as i64);
            start += ahead;
        }
        let mut at = Some(start);
        let entry = entry.clone();
        for (index, frame) in frames.into_iter().enumerate() {
            let bytes = [&entry.stripped[..], frame].concat();
            let seconds = self.frame_seconds(&bytes).or(entry.frame);
            let until = if index + 1 == count && discard_s > 0.0 {
                seconds.zip(at).map_or(f64::INFINITY, |(seconds, at)| at + seconds - discard_s)
            } else {
                f64::INFINITY
            };
            let seconds = seconds.unwrap_or(0.0);
            self.queue.push_back((bytes, Span { start: at, from: 0.0, until }, seconds));
            self.end = at.map_or(self.end, |at| at + seconds);
            // Only the first frame of a block has a time of its own.
            at = at.filter(|_| seconds > 0.0).map(|at| at + seconds);
        }
    }

    /// How long a frame is by its own bytes.
    fn frame_seconds(&self, frame: &[u8]) -> Option<f64> {
        let format = &self.tracks[self.chosen].format;
        let rate = f64::from(format.rate.max(1));
        match format.codec {
            Codec::Opus => opus::samples_of(frame).map(|samples| samples as f64 / f64::from(opus::RATE)),
            Codec::Aac => Some(1024.0 / rate),
            Codec::Pcm(pcm) => Some((frame.len() / pcm.frame()) as f64 / rate),
            Codec::Flac => flac::FrameHeader::read(frame).map(|header| f64::from(header.samples) / rate),
            Codec::Mpeg(_) => crate::frames::Frame::at(frame).map(|f| f64::from(f.samples) / f64::from(f.rate.max(1))),
            _ => None,
        }
    }

    /// Reads over bytes to the next cluster, or to a block that another element follows; `false` where there is none.
    fn resync(&mut self, input: &mut Input) -> Result<bool> {
        loop {
            let bytes = input.peek(RESYNC)?;
            let ended = bytes.len() < RESYNC;
            // Half of what is looked at is left to see what follows.
            let reach = if ended { bytes.len().saturating_sub(7) } else { RESYNC / 2 };
            let found = (1..reach).find(|&at| self.is_element(bytes, at, ended));
            input.skip(found.unwrap_or(reach.max(8)) as u64)?;
            if found.is_some() || ended {
                return Ok(found.is_some());
            }
        }
    }

    /// Whether a cluster or a block begins there.
    fn is_element(&self, bytes: &[u8], at: usize, ended: bool) -> bool {
        let Some(head) = bytes.get(at..).and_then(read_head).filter(Head::is_known) else { return false };
        if head.id == id::CLUSTER {
            return true;
        }
        let body = at + head.len as usize;
        let of_a_track = match head.id {
            id::SIMPLE_BLOCK => {
                variable(bytes, body).is_some_and(|(number, _)| self.entries.iter().any(|entry| entry.number == number))
            }
            id::BLOCK_GROUP => bytes.get(body) == Some(&(id::BLOCK as u8)),
            _ => false,
        };
        let next = body.saturating_add(head.size.unwrap_or(0) as usize);
        let follows = match bytes.get(next..) {
            Some(rest) if !rest.is_empty() => read_head(rest).is_some_and(|next| next.is_known()),
            _ => ended && next == bytes.len(),
        };
        of_a_track && follows
    }

    fn ended(&mut self, input: &mut Input, cut: bool) -> Event {
        if std::mem::replace(&mut self.ended, true) {
            return Event::End;
        }
        let short = self.segment_end.is_some_and(|end| input.position() < end);
        if cut || short {
            let seconds = self.duration.map_or(0.0, |duration| (duration - self.end).max(0.0));
            return Event::Lost { seconds, what: "cut off" };
        }
        Event::End
    }
}

impl Container for Mkv {
    fn name(&self) -> &'static str {
        "Matroska"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, track: usize) -> Result<()> {
        self.chosen = track;
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        self.duration
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        let mut body = Vec::new();
        loop {
            if std::mem::take(&mut self.broken) {
                return Ok(Event::Lost { seconds: 0.0, what: "a damaged block" });
            }
            if let Some((bytes, span, seconds)) = self.queue.pop_front() {
                *packet = bytes;
                return Ok(Event::Packet { span, seconds });
            }
            if self.ended || self.segment_end.is_some_and(|end| input.position() >= end) && input.peek(1)?.is_empty() {
                return Ok(self.ended(input, false));
            }
            let available = input.peek(12)?.len();
            let Some(head) = self.head(input)?.filter(Head::is_known) else {
                if available == 0 {
                    return Ok(self.ended(input, false));
                }
                let tail = available < 12;
                let before = input.position();
                if tail || !self.resync(input)? {
                    return Ok(self.ended(input, true));
                }
                self.adrift = Some((input.position() - before) as f64 * self.end / before.max(1) as f64);
                return Ok(Event::Lost { seconds: 0.0, what: "bytes that are no structure" });
            };
            input.skip(head.len)?;
            match head.id {
                id::SEGMENT => self.segment_end = head.size.map(|size| input.position().saturating_add(size)),
                id::CLUSTER => {}
                id::TIMESTAMP | id::SIMPLE_BLOCK | id::BLOCK_GROUP
                    if head.size.is_some_and(|size| size <= MAX_ELEMENT) =>
                {
                    let size = head.size.unwrap_or(0) as usize;
                    input.take(size, &mut body)?;
                    if body.len() < size {
                        return Ok(self.ended(input, true));
                    }
                    match head.id {
                        id::TIMESTAMP => {
                            self.cluster = i64::try_from(number(&body)).unwrap_or(0);
                            self.adrift = None;
                        }
                        id::SIMPLE_BLOCK => self.take_block(&body, 0.0),
                        _ => {
                            let part =
                                |wanted| elements(&body).find(|(id, _)| *id == wanted).map(|(_, body)| body.to_vec());
                            let discard = part(id::DISCARD_PADDING).map_or(0, |body| signed(&body));
                            if let Some(block) = part(id::BLOCK) {
                                self.take_block(&block, discard as f64 / 1e9);
                            }
                        }
                    }
                }
                _ => {
                    let size = head.size.unwrap_or(0);
                    if input.skip(size)? < size {
                        return Ok(self.ended(input, true));
                    }
                }
            }
        }
    }
}

impl Head {
    /// Whether it can stand where clusters do.
    fn is_known(&self) -> bool {
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

fn read_head(bytes: &[u8]) -> Option<Head> {
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
fn variable(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
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
fn elements(body: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = read_head(body.get(at..)?)?;
        let begin = at + head.len as usize;
        let end = head.size.map_or(body.len(), |size| begin.saturating_add(size as usize)).min(body.len());
        at = end;
        Some((head.id, body.get(begin..end)?))
    })
}

fn number(body: &[u8]) -> u64 {
    body.iter().take(8).fold(0, |n, &b| n << 8 | u64::from(b))
}

fn signed(body: &[u8]) -> i64 {
    let fill = if body.first().is_some_and(|b| b & 0x80 != 0) { -1 } else { 0 };
    body.iter().take(8).fold(fill, |n: i64, &b| n << 8 | i64::from(b))
}

fn float(body: &[u8]) -> f64 {
    let value = match body.len() {
        4 => body.be32(0).map_or(0.0, |bits| f64::from(f32::from_bits(bits))),
        8 => body.be64(0).map_or(0.0, f64::from_bits),
        _ => 0.0,
    };
    if value.is_finite() { value } else { 0.0 }
}

/// The frames of a block by its lacing: none, Xiph's, fixed or EBML's.
fn frames(body: &[u8], lacing: u8) -> Option<Vec<&[u8]>> {
    if lacing == 0 {
        return Some(vec![body]);
    }
    let count = usize::from(*body.first()?) + 1;
    let mut at = 1;
    let mut sizes = Vec::with_capacity(count);
    match lacing {
        1 => {
            for _ in 1..count {
                let mut size = 0;
                loop {
                    let byte = *body.get(at)?;
                    at += 1;
                    size += usize::from(byte);
                    if byte < 255 {
                        break;
                    }
                }
                sizes.push(size);
            }
        }
        2 => sizes = vec![(body.len() - 1) / count; count - 1],
        _ => {
            let mut size = 0i64;
            for index in 1..count {
                let (value, end) = variable(body, at)?;
                let bias = (1i64 << (7 * (end - at) - 1)) - 1;
                size = if index == 1 { value as i64 } else { size.checked_add(value as i64 - bias)? };
                sizes.push(usize::try_from(size).ok()?);
                at = end;
            }
        }
    }
    let mut frames = Vec::with_capacity(count);
    for size in sizes {
        let end = at.checked_add(size)?;
        frames.push(body.get(at..end)?);
        at = end;
    }
    frames.push(body.get(at..)?);
    Some(frames)
}

fn read_track(body: &[u8]) -> Option<(Track, Entry)> {
    let (mut codec, mut private, mut kind, mut default, mut enabled) = (String::new(), Vec::new(), 0, true, true);
    let (mut rate, mut channels, mut bits) = (8000.0, 1, 0);
    let mut entry = Entry::default();
    let mut encoded = None;
    for (id, body) in elements(body) {
        match id {
            id::TRACK_NUMBER => entry.number = number(body),
            id::TRACK_TYPE => kind = number(body),
            id::FLAG_DEFAULT => default = number(body) != 0,
            id::FLAG_ENABLED => enabled = number(body) != 0,
            id::DEFAULT_DURATION => entry.frame = Some(number(body) as f64 / 1e9).filter(|&s| s > 0.0 && s < 10.0),
            id::CODEC_ID => codec = String::from_utf8_lossy(body).trim_end_matches('\0').to_owned(),
            id::CODEC_PRIVATE => private = body.to_vec(),
            id::CODEC_DELAY => entry.delay = (number(body) as f64 / 1e9).min(10.0),
            id::AUDIO => {
                for (id, body) in elements(body) {
                    match id {
                        id::SAMPLING_FREQUENCY => rate = float(body),
                        id::CHANNELS => channels = number(body) as usize,
                        id::BIT_DEPTH => bits = number(body) as usize,
                        _ => {}
                    }
                }
            }
            id::ENCODINGS => {
                for (_, body) in elements(body).filter(|(id, _)| *id == id::ENCODING) {
                    // The default is zlib, which is not built in.
                    let mut algorithm = 0;
                    for (id, body) in elements(body) {
                        match id {
                            id::COMPRESSION => {
                                for (id, body) in elements(body) {
                                    match id {
                                        id::COMPRESSION_ALGORITHM => algorithm = number(body),
                                        id::COMPRESSION_SETTINGS => entry.stripped = body.to_vec(),
                                        _ => {}
                                    }
                                }
                            }
                            id::ENCRYPTION => algorithm = 9,
                            _ => {}
                        }
                    }
                    match algorithm {
                        3 => {}
                        9 => encoded = Some("encrypted audio"),
                        _ => encoded = Some("compressed audio"),
                    }
                }
            }
            _ => {}
        }
    }
    if kind != 2 {
        return None;
    }
    let rate = rate.clamp(0.0, 1e9) as u32;
    let format = match encoded {
        Some(encoded) => Format::other(format!("{encoded} ({codec})")),
        None => format_of(&codec, private, rate, channels, bits),
    };
    if format.codec == Codec::Opus && entry.delay == 0.0 {
        entry.delay = opus::Head::read(&format.setup).map_or(0.0, |head| f64::from(head.skip) / f64::from(opus::RATE));
    }
    Some((Track { format, default: default && enabled }, entry))
}

fn format_of(codec: &str, private: Vec<u8>, rate: u32, channels: usize, bits: usize) -> Format {
    let plain = |codec| Format::new(codec, rate, channels);
    let with = |codec, setup| Format { setup, ..plain(codec) };
    let pcm = |float, big| PcmFormat::of(bits / 8, float, big, rate, channels).map(|pcm| plain(Codec::Pcm(pcm)));
    let format = match codec {
        "A_OPUS" => Some(Format { rate: opus::RATE, ..with(Codec::Opus, private) }),
        "A_VORBIS" => vorbis::unlace(&private).map(|setup| with(Codec::Vorbis, setup)),
        "A_AAC" => Some(aac_format(&private)),
        "A_MPEG/L1" => Some(plain(Codec::Mpeg(1))),
        "A_MPEG/L2" => Some(plain(Codec::Mpeg(2))),
        "A_MPEG/L3" => Some(plain(Codec::Mpeg(3))),
        "A_FLAC" => private
            .strip_prefix(b"fLaC")
            .and_then(|blocks| blocks.get(4..38))
            .map(|info| with(Codec::Flac, info.to_vec())),
        "A_ALAC" => Some(with(Codec::Alac, private)),
        "A_PCM/INT/LIT" => pcm(false, false),
        "A_PCM/INT/BIG" => pcm(false, true),
        "A_PCM/FLOAT/IEEE" => pcm(true, false),
        "A_AC3" | "A_AC3/BSID9" | "A_AC3/BSID10" => Some(Format::other("AC-3")),
        "A_EAC3" => Some(Format::other("E-AC-3")),
        "A_DTS" => Some(Format::other("DTS")),
        "A_MS/ACM" => private.le16(0).map(|tag| match (tag, private.le16(14)) {
            (0x55, _) => plain(Codec::Mpeg(3)),
            (1, Some(bits)) => pcm_or_other(PcmFormat::of(usize::from(bits) / 8, false, false, rate, channels)),
            (0xff, _) => private.get(18..).map_or_else(|| Format::other("AAC"), aac_format),
            (tag, _) => Format::other(wav::codec_name(tag, 0)),
        }),
        _ if codec.starts_with("A_AAC") => Some(aac_of_name(codec, rate, channels)),
        _ => None,
    };
    format.unwrap_or_else(|| Format::other(codec.trim_start_matches("A_")))
}

fn pcm_or_other(pcm: Option<PcmFormat>) -> Format {
    pcm.map_or_else(|| Format::other("PCM"), |pcm| Format::new(Codec::Pcm(pcm), pcm.rate, pcm.channels))
}

/// What older writers put into the name.
fn aac_of_name(codec: &str, rate: u32, channels: usize) -> Format {
    if codec.ends_with("/LC") {
        return Format::new(Codec::Aac, rate, channels);
    }
    let rate = if codec.ends_with("/SBR") { rate / 2 } else { rate };
    Format::new(Codec::Aac, rate, channels)
}
