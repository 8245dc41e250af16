//! Matroska and WebM: blocks of the clusters, with their times.

mod ebml;
mod id;
mod track;

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::input::Input;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};
use crate::{flac, opus};

use ebml::{Head, elements, float, number, read_head, signed, variable};
use track::{Entry, read_track};

/// Larger elements are not read whole.
const MAX_ELEMENT: u64 = 16 << 20;
/// Bytes of the longest head of an element.
const HEAD: usize = 12;
/// Times are rounded by less than this.
const ROUNDED_S: f64 = 0.02;
/// What is looked at to find the next element behind damage.
const RESYNC: usize = 64 << 10;
/// What is read in search of the tracks.
const MAX_HEADER: u64 = 256 << 20;

pub(crate) struct Mkv {
    tracks: Vec<Track>,
    entries: Vec<Entry>,
    chosen: usize,
    /// Nanoseconds of a tick.
    scale: u64,
    duration: Option<f64>,
    /// Where the segment ends, where its header says so.
    segment_end: Option<u64>,
    /// The time of the cluster, in ticks.
    cluster: i64,
    /// Frames that have been read and not been handed out, with how long each is, in seconds.
    queue: VecDeque<(Vec<u8>, Span, f64)>,
    /// A block could not be read.
    broken: bool,
    /// Seconds that bytes that were read over may have been, where the time of their cluster may be lost too.
    adrift: Option<f64>,
    ended: bool,
    /// Where the last packet ended, in seconds.
    end: f64,
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
            let Some(head) = read_head(input.peek(HEAD)?) else { break };
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

    fn read_info(&mut self, body: &[u8]) {
        let mut ticks = None;
        for (id, body) in elements(body) {
            match id {
                id::TIMESTAMP_SCALE => self.scale = number(body).clamp(1, 1_000_000_000),
                id::DURATION => ticks = Some(float(body)).filter(|ticks| *ticks > 0.0),
                _ => {}
            }
        }
        self.duration = ticks.map(|ticks| ticks * self.scale as f64 / 1e9).or(self.duration);
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

    /// The format of the chosen track in a file that follows, where it is another.
    fn change_tracks(&mut self, body: &[u8]) -> Option<Format> {
        let before = (std::mem::take(&mut self.tracks), std::mem::take(&mut self.entries));
        self.read_tracks(body);
        if self.tracks.is_empty() {
            (self.tracks, self.entries) = before;
            return None;
        }
        let was = before.0[self.chosen].format.clone();
        self.chosen = self.chosen.min(self.tracks.len() - 1);
        let format = &self.tracks[self.chosen].format;
        (*format != was).then(|| format.clone())
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

    /// The head of the element here, if it is one that can stand here, or one that is not known and that another follows:
    /// formats grow.
    fn element_here(&self, input: &mut Input) -> Result<Option<Head>> {
        let Some(head) = read_head(input.peek(HEAD)?) else { return Ok(None) };
        if head.is_known() {
            return Ok(Some(head));
        }
        let end = head.len.saturating_add(head.size.unwrap_or(u64::MAX));
        if end > RESYNC as u64 {
            return Ok(None);
        }
        let bytes = input.peek(end as usize + 24)?;
        Ok(self.plausible(bytes, end as usize).map(|_| head))
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
        let Some(head) = self.plausible(bytes, at) else { return false };
        let next = at.saturating_add(head.len as usize).saturating_add(head.size.unwrap_or(0) as usize);
        let follows = match bytes.get(next..) {
            Some(rest) if !rest.is_empty() => read_head(rest).is_some_and(|next| next.is_known()),
            _ => ended && next == bytes.len(),
        };
        head.id == id::CLUSTER || matches!(head.id, id::SIMPLE_BLOCK | id::BLOCK_GROUP) && follows
    }

    /// The head that begins there, if more than its first byte says that it is one.
    fn plausible(&self, bytes: &[u8], at: usize) -> Option<Head> {
        let head = bytes.get(at..).and_then(read_head).filter(Head::is_known)?;
        let body = at + head.len as usize;
        let plausible = match head.id {
            id::SIMPLE_BLOCK => {
                variable(bytes, body).is_some_and(|(number, _)| self.entries.iter().any(|entry| entry.number == number))
            }
            id::BLOCK_GROUP => bytes.get(body) == Some(&(id::BLOCK as u8)),
            // Numbers and checksums, or what is too rare to be chance.
            id => id > 0xff_ffff || head.size.is_some_and(|size| size <= 8),
        };
        plausible.then_some(head)
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
            let available = input.peek(HEAD)?.len();
            let Some(head) = self.element_here(input)? else {
                if available == 0 {
                    return Ok(self.ended(input, false));
                }
                let tail = available < HEAD;
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
                // Another file begins where this one ends.
                id::INFO | id::TRACKS if head.size.is_some_and(|size| size <= MAX_ELEMENT) => {
                    input.take(head.size.unwrap_or(0) as usize, &mut body)?;
                    if head.id == id::INFO {
                        self.read_info(&body);
                    } else if let Some(format) = self.change_tracks(&body) {
                        return Ok(Event::Format(format));
                    }
                }
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
