//! Ogg: pages with checksums, numbers and positions, so that what is lost is known and what is not keeps its time.

mod page;

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::input::Input;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};
use crate::{flac, opus, vorbis};

use page::{CONTINUED, FIRST, LAST, NO_GRANULE, Page};

/// Larger packets are not believed.
const MAX_PACKET: usize = 8 << 20;
/// A stream that begins by so much behind 0 was cut out of a longer one.
const CUT_OUT_S: f64 = 1.0;
/// Streams at the beginning, and header packets of one, that are believed.
const MAX_STREAMS: usize = 64;

pub(crate) struct Ogg {
    tracks: Vec<Track>,
    /// One for each track.
    serials: Vec<u32>,
    stream: Option<Stream>,
    /// What has been read and not been handed out.
    queue: VecDeque<Queued>,
    /// Pages that were read while looking for headers.
    pages: VecDeque<Page>,
    asked: usize,
    /// There are other streams, whose clock is the same.
    has_others: bool,
    /// The last page was none that a stream begins with.
    goes_on: bool,
    ended: bool,
}

enum Queued {
    Packet(Vec<u8>, Span, f64),
    Event(Event),
}

/// The stream that is read.
struct Stream {
    serial: u32,
    format: Format,
    timing: Timing,
    /// The beginning of a packet that goes on in the next page.
    partial: Option<Vec<u8>>,
    sequence: Option<u32>,
    /// The granule of the first sample, where the stream was cut out of a longer one.
    base: Option<i64>,
    /// Seconds of the presentation at which this chain link begins.
    origin: f64,
    /// Where the last packet ended.
    end: f64,
    finished: bool,
    broken: bool,
}

/// How long packets are.
enum Timing {
    Opus { skip: i64 },
    Vorbis(Box<vorbis::Timing>),
    Flac,
}

impl Stream {
    /// Samples of a packet, in the clock of the granules.
    fn samples(&mut self, packet: &[u8]) -> u32 {
        match &mut self.timing {
            Timing::Opus { .. } => opus::samples_of(packet).unwrap_or(0) as u32,
            Timing::Vorbis(timing) => timing.samples(packet),
            Timing::Flac => flac::FrameHeader::read(packet).map_or(0, |header| header.samples),
        }
    }

    /// The packets that end in a page, with the beginnings that earlier ones had of them.
    fn packets(&mut self, page: &Page) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut orphan = page.flags & CONTINUED != 0 && self.partial.is_none();
        if page.flags & CONTINUED == 0 {
            self.partial = None;
        }
        for (packet, whole) in page.packets() {
            let mut bytes = self.partial.take().unwrap_or_default();
            bytes.extend_from_slice(packet);
            match (whole, orphan) {
                // The end of a packet whose beginning is lost.
                (_, true) => orphan = !whole,
                (true, false) => packets.push(bytes),
                (false, false) if bytes.len() <= MAX_PACKET => self.partial = Some(bytes),
                (false, false) => {}
            }
        }
        packets
    }

    /// Of the clock of the granules.
    fn rate(&self) -> f64 {
        if matches!(self.timing, Timing::Opus { .. }) {
            f64::from(opus::RATE)
        } else {
            f64::from(self.format.rate.max(1))
        }
    }
}

impl Ogg {
    pub(crate) fn open(input: &mut Input) -> Result<Self> {
        let mut ogg = Self {
            tracks: Vec::new(),
            serials: Vec::new(),
            stream: None,
            queue: VecDeque::new(),
            pages: VecDeque::new(),
            asked: 0,
            has_others: false,
            goes_on: false,
            ended: false,
        };
        let mut heads: Vec<(u32, Vec<u8>)> = Vec::new();
        while let Some(page) = Page::read(input)? {
            let first = page.flags & FIRST != 0;
            if first && heads.len() < MAX_STREAMS {
                heads.push((page.serial, page.body.clone()));
            }
            ogg.pages.push_back(page);
            if !first && !heads.is_empty() || ogg.pages.len() > MAX_STREAMS {
                break;
            }
        }
        ogg.has_others = heads.len() > 1;
        for (serial, head) in heads {
            if let Some(format) = identify(&head) {
                ogg.tracks.push(Track { format, default: false });
                ogg.serials.push(serial);
            }
        }
        if ogg.tracks.is_empty() {
            return Err(Error::NoTrack);
        }
        for index in 0..ogg.tracks.len() {
            ogg.complete(input, index)?;
        }
        Ok(ogg)
    }

    /// Reads on until all headers of a Vorbis track are there, without which there is no decoder.
    fn complete(&mut self, input: &mut Input, index: usize) -> Result<()> {
        if self.tracks[index].format.codec != Codec::Vorbis {
            return Ok(());
        }
        let serial = self.serials[index];
        let (mut at, mut packets, mut partial) = (0, Vec::new(), Vec::new());
        while packets.len() < 3 {
            while at == self.pages.len() {
                match Page::read(input)? {
                    Some(page) if self.pages.len() < 4 * MAX_STREAMS => self.pages.push_back(page),
                    _ => return Ok(()),
                }
            }
            let page = &self.pages[at];
            at += 1;
            if page.serial != serial {
                continue;
            }
            for (packet, whole) in page.packets() {
                partial.extend_from_slice(packet);
                if whole {
                    packets.push(std::mem::take(&mut partial));
                }
            }
        }
        self.tracks[index].format.setup = [&packets[0][..], &packets[2]].concat();
        Ok(())
    }

    /// Begins to read the track.
    fn begin(&mut self, index: usize, origin: f64) {
        let format = self.tracks[index].format.clone();
        let timing = match format.codec {
            Codec::Opus => {
                Timing::Opus { skip: opus::Head::read(&format.setup).map_or(0, |head| i64::from(head.skip)) }
            }
            Codec::Vorbis => Timing::Vorbis(Box::new(vorbis::Timing::read(&format.setup))),
            _ => Timing::Flac,
        };
        self.stream = Some(Stream {
            serial: self.serials[index],
            format,
            timing,
            partial: None,
            sequence: None,
            base: None,
            origin,
            end: origin,
            finished: false,
            broken: false,
        });
    }

    /// A link of a chain: other streams begin, where those before have ended.
    fn next_link(&mut self, input: &mut Input, page: Page) -> Result<()> {
        let origin = self.stream.as_ref().map_or(0.0, |stream| stream.end);
        self.pages.push_front(page);
        let (mut tracks, mut serials) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < MAX_STREAMS {
            if at == self.pages.len() {
                match Page::read(input)? {
                    Some(page) => self.pages.push_back(page),
                    None => break,
                }
            }
            let page = &self.pages[at];
            if page.flags & FIRST == 0 {
                break;
            }
            if let Some(format) = identify(&page.body) {
                tracks.push(Track { format, default: false });
                serials.push(page.serial);
            }
            at += 1;
        }
        if tracks.is_empty() {
            // Nothing that sounds; go on with what comes after it.
            self.pages.drain(..at.min(self.pages.len()));
            return Ok(());
        }
        (self.tracks, self.serials) = (tracks, serials);
        let index = self.asked.min(self.tracks.len() - 1);
        self.complete(input, index)?;
        self.begin(index, origin);
        self.queue.push_back(Queued::Event(Event::Format(self.tracks[index].format.clone())));
        Ok(())
    }

    /// Takes a page of the stream apart.
    fn take_page(&mut self, page: &Page) {
        let has_others = self.has_others;
        let Some(stream) = &mut self.stream else { return };
        if page.serial != stream.serial || stream.finished {
            return;
        }
        let missing = stream.sequence.is_some_and(|last| last.wrapping_add(1) != page.sequence);
        stream.sequence = Some(page.sequence);
        if missing {
            stream.partial = None;
            stream.broken = true;
            let what = if page.after_junk { "a damaged page" } else { "a missing page" };
            self.queue.push_back(Queued::Event(Event::Lost { seconds: 0.0, what }));
        }
        let mut packets = stream.packets(page);
        packets.retain(|packet| !is_header(&stream.format.codec, packet));
        if let Timing::Vorbis(timing) = &mut stream.timing
            && missing
        {
            timing.reset();
        }
        let counts: Vec<u32> = packets.iter().map(|packet| stream.samples(packet)).collect();
        let total: i64 = counts.iter().map(|&count| i64::from(count)).sum();
        let rate = stream.rate();
        let granule = page.granule as i64;
        let last = page.flags & LAST != 0;
        // The granule is the position behind the last packet that ends in the page.
        let timed = page.granule != NO_GRANULE && !packets.is_empty();
        let skip = if let Timing::Opus { skip } = stream.timing { skip } else { 0 };
        let mut at = None;
        let mut until = f64::INFINITY;
        if timed {
            let base = *stream.base.get_or_insert_with(|| {
                // A stream that was cut out of a longer one begins far behind 0, one beside a picture begins late. Where a
                // little is missing at the beginning, that is a gap; only the last page may end before its packets do.
                let first = granule.saturating_sub(total);
                if last || has_others || first as f64 <= CUT_OUT_S * rate { 0 } else { first }
            });
            let start = granule.saturating_sub(total).saturating_sub(base).saturating_sub(skip);
            let follows = stream.end - stream.origin;
            if last && (start as f64 / rate) < follows {
                // It is cut at its end.
                until = stream.origin + granule.saturating_sub(base).saturating_sub(skip) as f64 / rate;
                at = (stream.end == stream.origin).then(|| stream.origin - skip as f64 / rate);
            } else {
                at = Some(stream.origin + start as f64 / rate);
            }
        }
        for (packet, count) in packets.into_iter().zip(counts) {
            let seconds = f64::from(count) / rate;
            let start = at.unwrap_or(stream.end);
            let span = Span { start: at.or((!stream.broken).then_some(start)), from: stream.origin, until };
            at = at.map(|at| at + seconds);
            stream.end = (start + seconds).min(until).max(stream.end);
            self.queue.push_back(Queued::Packet(packet, span, seconds));
        }
        stream.broken &= !timed;
        stream.finished = last;
    }
}

impl Container for Ogg {
    fn name(&self) -> &'static str {
        "Ogg"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, track: usize) -> Result<()> {
        self.asked = track;
        self.begin(track, 0.0);
        Ok(())
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        loop {
            match self.queue.pop_front() {
                Some(Queued::Packet(bytes, span, seconds)) => {
                    *packet = bytes;
                    return Ok(Event::Packet { span, seconds });
                }
                Some(Queued::Event(event)) => return Ok(event),
                None => {}
            }
            let page = match self.pages.pop_front() {
                Some(page) => page,
                None => match Page::read(input)? {
                    Some(page) => page,
                    None if !std::mem::replace(&mut self.ended, true)
                        && self.stream.as_ref().is_some_and(|stream| !stream.finished) =>
                    {
                        return Ok(Event::Lost { seconds: 0.0, what: "cut off: the last page is missing" });
                    }
                    None => return Ok(Event::End),
                },
            };
            // All streams of a group begin before any of them goes on.
            let first = page.flags & FIRST != 0;
            let goes_on = std::mem::replace(&mut self.goes_on, !first);
            if first
                && goes_on
                && let Some(stream) = self.stream.as_ref().filter(|stream| stream.sequence.is_some())
                && (stream.serial != page.serial || stream.finished || page.sequence == 0)
            {
                if !stream.finished {
                    self.queue.push_back(Queued::Event(Event::Lost {
                        seconds: 0.0,
                        what: "cut off: the last page is missing",
                    }));
                }
                self.next_link(input, page)?;
                // Its own first page is one of its headers.
                continue;
            }
            self.take_page(&page);
        }
    }
}

/// What stream begins with this packet; `None` where it is none that sounds.
fn identify(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"OpusHead") {
        let setup = head.to_vec();
        let channels = opus::Head::read(head)?.channels;
        return Some(Format { setup, ..Format::new(Codec::Opus, opus::RATE, channels) });
    }
    if head.starts_with(b"\x01vorbis") {
        return Some(Format::new(Codec::Vorbis, head.le32(12)?, usize::from(*head.get(11)?)));
    }
    if head.starts_with(b"\x7fFLAC") {
        let setup = head.get(17..51)?.to_vec();
        let info = flac::StreamInfo::read(&setup)?;
        return Some(Format { setup, ..Format::new(Codec::Flac, info.rate, info.channels) });
    }
    if head.starts_with(b"fLaC") {
        return Some(Format::other("FLAC in its old mapping"));
    }
    if head.starts_with(b"Speex   ") {
        return Some(Format::other("Speex"));
    }
    if head.starts_with(b"PCM     ") {
        return Some(Format::other("PCM"));
    }
    None
}

/// Whether a packet is no sound but one of the headers, which may stand anywhere.
fn is_header(codec: &Codec, packet: &[u8]) -> bool {
    match codec {
        Codec::Vorbis => packet.first().is_some_and(|b| b & 1 == 1),
        Codec::Opus => packet.starts_with(b"OpusHead") || packet.starts_with(b"OpusTags"),
        _ => packet.first() != Some(&0xff),
    }
}
