//! MP4, M4A and MOV, whole or in fragments: samples of a track by its tables, at the times of its edit list.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::flac;
use crate::frames::AAC_RATES;
use crate::input::Input;
use crate::opus;
use crate::packet::{Codec, Container, Event, Format, Numbers, Span, Track};
use crate::pcm::{PcmFormat, SampleFormat};

/// A larger index is not believed: ten hours of audio have one of 10 MB.
const MAX_INDEX: u64 = 64 << 20;
/// A pipe whose index is at its end is kept up to this size.
const MAX_SPOOL: u64 = 2 << 30;
/// Plain samples are read in pieces of so many.
const PCM_PIECE: u32 = 4096;
/// A larger sample of anything else is not believed.
const MAX_SAMPLE: u32 = 8 << 20;
/// Samples of one fragment that are believed.
const MAX_RUN: usize = 1 << 20;

pub(crate) struct Mp4 {
    tracks: Vec<Track>,
    traks: Vec<Trak>,
    chosen: usize,
    fragmented: bool,
    /// Edits of the chosen track that are still to come; the first one is being read.
    edits: VecDeque<Edit>,
    cursor: Cursor,
    /// Samples of the fragment that is being read.
    run: VecDeque<Sample>,
    /// Where the next fragment is looked for.
    next_atom: u64,
    /// Ticks at which the next fragment begins, where it does not say.
    run_time: u64,
    cut: bool,
    ended: bool,
}

/// One audio track.
#[derive(Clone, Default)]
struct Trak {
    id: u32,
    timescale: u32,
    edits: Vec<Edit>,
    table: Table,
    /// Duration, size of the samples of fragments that do not say.
    defaults: (u32, u32),
    /// Samples and bytes of all channels in a unit of plain samples.
    pcm: Option<PcmFormat>,
}

/// A part of the media at a place in the presentation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Edit {
    /// Ticks of the media.
    from: u64,
    until: u64,
    /// Seconds of the presentation.
    at: f64,
    end: f64,
}

/// Where samples are and how long they last.
#[derive(Clone, Default)]
struct Table {
    /// Runs of equal duration: samples, ticks.
    durations: Vec<(u32, u32)>,
    /// First chunk (from 1) and samples in each chunk from there on.
    chunks: Vec<(u32, u32)>,
    offsets: Vec<u64>,
    /// Bytes of each, or of all where there is only one.
    sizes: Vec<u32>,
    equal: bool,
    count: u32,
}

/// A place in a table.
#[derive(Clone, Copy, Default)]
struct Cursor {
    sample: u32,
    time: u64,
    duration_run: usize,
    in_duration_run: u32,
    chunk: usize,
    chunk_run: usize,
    in_chunk: u32,
    /// Bytes from the beginning of the chunk.
    at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    offset: u64,
    size: u32,
    time: u64,
    ticks: u64,
}

impl Mp4 {
    pub(crate) fn open(input: &mut Input) -> Result<Self> {
        let mut first_data = None;
        let mut index = None;
        loop {
            let at = input.position();
            let Some(atom) = Atom::read(input.peek(16)?) else { break };
            match &atom.kind {
                b"moov" => {
                    let size = atom
                        .body()
                        .filter(|&size| size <= MAX_INDEX)
                        .ok_or(Error::Corrupt("an MP4 index of absurd size"))?;
                    input.skip(atom.head)?;
                    let mut body = Vec::new();
                    input.take(size as usize, &mut body)?;
                    index = Some(body);
                    first_data = first_data.or(Some(input.position()));
                    break;
                }
                b"mdat" | b"moof" if input.len().is_none() => {
                    // The index is behind the data that it is needed for.
                    if !input.restart()? {
                        return Err(Error::Corrupt("MP4 with its index behind the data"));
                    }
                    input.spool(MAX_SPOOL)?;
                    continue;
                }
                _ => {}
            }
            let Some(size) = atom.size else { break };
            if matches!(&atom.kind, b"mdat" | b"moof") {
                first_data = first_data.or(Some(at));
            }
            if input.skip(size)? < size {
                break;
            }
        }
        let index = index.ok_or(Error::Corrupt("MP4 without its index: it is cut off"))?;
        let mut mp4 = Self {
            tracks: Vec::new(),
            traks: Vec::new(),
            chosen: 0,
            fragmented: false,
            edits: VecDeque::new(),
            cursor: Cursor::default(),
            run: VecDeque::new(),
            next_atom: first_data.unwrap_or(0),
            run_time: 0,
            cut: false,
            ended: false,
        };
        mp4.read_index(&index);
        if mp4.tracks.is_empty() { Err(Error::NoTrack) } else { Ok(mp4) }
    }

    fn read_index(&mut self, body: &[u8]) {
        let movie_scale = find(body, b"mvhd").and_then(|b| if b.first() == Some(&1) { b.be32(20) } else { b.be32(12) });
        let extends = find(body, b"mvex");
        self.fragmented = extends.is_some();
        for (_, body) in atoms(body).filter(|(kind, _)| kind == b"trak") {
            let Some((track, mut trak)) = read_trak(body, movie_scale.unwrap_or(1000).max(1)) else { continue };
            for (_, body) in extends.into_iter().flat_map(atoms).filter(|(kind, _)| kind == b"trex") {
                if body.be32(4) == Some(trak.id) {
                    trak.defaults = (body.be32(12).unwrap_or(0), body.be32(16).unwrap_or(0));
                }
            }
            self.tracks.push(track);
            self.traks.push(trak);
        }
    }

    fn trak(&self) -> &Trak {
        &self.traks[self.chosen]
    }

    /// The next sample by the tables, then by the fragments.
    fn next_sample(&mut self, input: &mut Input) -> Result<Option<Sample>> {
        let trak = &self.traks[self.chosen];
        let piece = if trak.pcm.is_some() { PCM_PIECE } else { 1 };
        if let Some(sample) = self.cursor.next(&trak.table, trak.pcm, piece) {
            return Ok(Some(sample));
        }
        while self.fragmented {
            if let Some(sample) = self.run.pop_front() {
                return Ok(Some(sample));
            }
            if !self.read_fragment(input)? {
                break;
            }
        }
        Ok(None)
    }

    /// Finds the next fragment; `false` at the end.
    fn read_fragment(&mut self, input: &mut Input) -> Result<bool> {
        if !input.seek(self.next_atom)? {
            self.cut = true;
            return Ok(false);
        }
        loop {
            let at = input.position();
            let head = input.peek(16)?;
            if head.len() < 8 {
                self.cut |= !head.is_empty();
                return Ok(false);
            }
            let atom = Atom::read(head).filter(|atom| is_top_level(&atom.kind));
            let Some(atom) = atom else {
                // Damaged: look for another fragment.
                let found = input.peek(64 << 10)?.windows(4).skip(5).position(|kind| kind == b"moof");
                self.cut = true;
                match found {
                    Some(found) => input.skip(found as u64 + 1)?,
                    None if input.peek(64 << 10)?.len() < 64 << 10 => return Ok(false),
                    None => input.skip((64 << 10) - 16)?,
                };
                continue;
            };
            if &atom.kind == b"moof"
                && let Some(size) = atom.body().filter(|&size| size <= MAX_INDEX)
            {
                input.skip(atom.head)?;
                let mut body = Vec::new();
                input.take(size as usize, &mut body)?;
                if (body.len() as u64) < size {
                    self.cut = true;
                    return Ok(false);
                }
                // Its data follows, and the next fragment that.
                let data = Atom::read(input.peek(16)?).filter(|atom| &atom.kind == b"mdat").and_then(|atom| atom.size);
                self.next_atom = input.position().saturating_add(data.unwrap_or(0));
                self.read_moof(&body, at);
                return Ok(true);
            }
            let Some(size) = atom.size else { return Ok(false) };
            if input.skip(size)? < size {
                self.cut |= input.len().is_none_or(|len| at + size > len);
                return Ok(false);
            }
        }
    }

    fn read_moof(&mut self, body: &[u8], moof: u64) {
        let trak = self.traks[self.chosen].clone();
        for (_, body) in atoms(body).filter(|(kind, _)| kind == b"traf") {
            let Some(head) = find(body, b"tfhd") else { continue };
            let flags = head.be32(0).unwrap_or(0);
            if head.be32(4) != Some(trak.id) {
                continue;
            }
            let mut at = 8;
            let mut field = |flag: u32, size: usize| {
                let value = if flags & flag == 0 {
                    None
                } else if size == 8 {
                    head.be64(at)
                } else {
                    head.be32(at).map(u64::from)
                };
                at += if flags & flag == 0 { 0 } else { size };
                value
            };
            let base = field(1, 8).unwrap_or(moof);
            field(2, 4);
            let duration = field(8, 4).unwrap_or(u64::from(trak.defaults.0));
            let size = field(0x10, 4).unwrap_or(u64::from(trak.defaults.1));
            if let Some(time) = find(body, b"tfdt") {
                let time = if time.first() == Some(&1) { time.be64(4) } else { time.be32(4).map(u64::from) };
                self.run_time = time.unwrap_or(self.run_time);
            }
            let mut offset = base;
            for (_, run) in atoms(body).filter(|(kind, _)| kind == b"trun") {
                let flags = run.be32(0).unwrap_or(0);
                let count = run.be32(4).unwrap_or(0) as usize;
                let mut at = 8;
                if flags & 1 != 0 {
                    offset = base.wrapping_add_signed(i64::from(run.be32(at).unwrap_or(0) as i32));
                    at += 4;
                }
                at += if flags & 4 != 0 { 4 } else { 0 };
                for _ in 0..count.min(MAX_RUN) {
                    let mut field = |flag: u32, default: u64| {
                        if flags & flag == 0 {
                            return Some(default);
                        }
                        at += 4;
                        run.be32(at - 4).map(u64::from)
                    };
                    let (Some(ticks), Some(size), Some(_), Some(_)) =
                        (field(0x100, duration), field(0x200, size), field(0x400, 0), field(0x800, 0))
                    else {
                        break;
                    };
                    if self.run.len() >= MAX_RUN {
                        break;
                    }
                    self.run.push_back(Sample { offset, size: size as u32, time: self.run_time, ticks });
                    self.run_time = self.run_time.saturating_add(ticks);
                    offset = offset.saturating_add(size);
                }
            }
        }
    }

    /// The part of the presentation that a sample is for; `None` where it is for none.
    fn place(&self, edit: Edit, sample: &Sample) -> Span {
        let seconds = |ticks: u64| ticks as f64 / f64::from(self.trak().timescale);
        let start = edit.at + seconds(sample.time) - seconds(edit.from);
        Span { start: Some(start), from: edit.at, until: edit.end }
    }

    fn cut_off(&mut self, from: u64) -> Event {
        self.ended = true;
        let trak = self.trak();
        let total = if self.fragmented { 0 } else { trak.table.ticks() };
        let until = self.edits.front().map_or(u64::MAX, |edit| edit.until).min(total);
        let seconds = until.saturating_sub(from) as f64 / f64::from(trak.timescale);
        Event::Lost { seconds, what: "cut off" }
    }
}

impl Container for Mp4 {
    fn name(&self) -> &'static str {
        "MP4"
    }

    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn choose(&mut self, track: usize) -> Result<()> {
        self.chosen = track;
        self.edits = self.traks[track].edits.iter().copied().collect();
        Ok(())
    }

    fn seconds(&self) -> Option<f64> {
        let trak = self.trak();
        let end = trak.edits.last().map(|edit| edit.end).filter(|end| end.is_finite());
        let media = trak.table.ticks();
        end.or((media > 0).then(|| media as f64 / f64::from(trak.timescale)))
    }

    fn next(&mut self, input: &mut Input, packet: &mut Vec<u8>) -> Result<Event> {
        loop {
            let Some(&edit) = self.edits.front().filter(|_| !self.ended) else { return Ok(Event::End) };
            let Some(sample) = self.next_sample(input)? else {
                if std::mem::take(&mut self.cut) {
                    return Ok(self.cut_off(u64::MAX));
                }
                self.next_edit(input, edit);
                continue;
            };
            if sample.time >= edit.until {
                self.next_edit(input, edit);
                continue;
            }
            // Codecs need what is before to begin with; two packets are enough for all of them.
            let before = edit.from.saturating_sub(sample.ticks.saturating_mul(2));
            if sample.size == 0 || sample.time.saturating_add(sample.ticks) <= before && self.trak().pcm.is_none() {
                continue;
            }
            let seconds = sample.ticks as f64 / f64::from(self.trak().timescale);
            if sample.size > MAX_SAMPLE {
                return Ok(Event::Lost { seconds, what: "a packet of absurd size" });
            }
            let behind = input.len().is_some_and(|len| sample.offset >= len);
            if behind || !input.seek(sample.offset)? {
                if input.len().is_none() && sample.offset < input.position() {
                    return Ok(Event::Lost { seconds, what: "a packet that is not in its place" });
                }
                // One bad address of many is no end; but nothing can follow the end of a pipe.
                if input.len().is_some() && !self.fragmented && self.cursor.sample < self.trak().table.count / 2 {
                    self.cut = true;
                    continue;
                }
                return Ok(self.cut_off(sample.time));
            }
            input.take(sample.size as usize, packet)?;
            if packet.len() < sample.size as usize {
                return Ok(self.cut_off(sample.time));
            }
            return Ok(Event::Packet { span: self.place(edit, &sample), seconds });
        }
    }
}

impl Mp4 {
    fn next_edit(&mut self, input: &mut Input, done: Edit) {
        self.edits.pop_front();
        let Some(next) = self.edits.front() else { return };
        // What the next edit shows may be before or behind what this one did.
        if !self.fragmented && (input.len().is_some() || next.from >= done.until) {
            self.cursor = Cursor::default();
        }
    }
}

impl Table {
    fn ticks(&self) -> u64 {
        self.durations
            .iter()
            .fold(0, |sum: u64, &(count, ticks)| sum.saturating_add(u64::from(count) * u64::from(ticks)))
    }

    fn size(&self, sample: u32) -> u32 {
        let index = if self.equal { 0 } else { sample as usize };
        self.sizes.get(index).copied().unwrap_or(0)
    }
}

impl Cursor {
    /// The next sample of anything, or up to `piece` plain ones that lie in one chunk.
    fn next(&mut self, table: &Table, pcm: Option<PcmFormat>, piece: u32) -> Option<Sample> {
        if self.sample >= table.count {
            return None;
        }
        let &offset = table.offsets.get(self.chunk)?;
        let in_chunk = loop {
            let &(_, count) = table.chunks.get(self.chunk_run)?;
            match table.chunks.get(self.chunk_run + 1) {
                Some(&(first, _)) if u64::from(first) <= self.chunk as u64 + 1 => self.chunk_run += 1,
                _ => break count,
            }
        };
        if in_chunk == 0 {
            self.chunk += 1;
            return self.next_chunk(table, pcm, piece);
        }
        let count = piece.min(in_chunk - self.in_chunk).min(table.count - self.sample).max(1);
        let size = match pcm {
            // Their sizes are often said to be 1.
            Some(pcm) => u64::from(count) * pcm.frame() as u64,
            None => u64::from(table.size(self.sample)),
        };
        let sample = Sample {
            offset: offset.saturating_add(self.at),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            time: self.time,
            ticks: self.pass(table, count),
        };
        self.time = self.time.saturating_add(sample.ticks);
        self.sample += count;
        self.at = self.at.saturating_add(size);
        self.in_chunk += count;
        if self.in_chunk >= in_chunk {
            (self.chunk, self.in_chunk, self.at) = (self.chunk + 1, 0, 0);
        }
        Some(sample)
    }

    /// Over chunks without samples, of which there may be many.
    fn next_chunk(&mut self, table: &Table, pcm: Option<PcmFormat>, piece: u32) -> Option<Sample> {
        // The run of such chunks ends where the next one begins.
        let &(first, _) = table.chunks.get(self.chunk_run + 1)?;
        self.chunk = self.chunk.max((first as usize).saturating_sub(1));
        self.chunk_run += 1;
        let &(_, count) = table.chunks.get(self.chunk_run)?;
        if count == 0 { None } else { self.next(table, pcm, piece) }
    }

    /// Ticks of the next `count` samples.
    fn pass(&mut self, table: &Table, count: u32) -> u64 {
        let (mut left, mut ticks) = (count, 0u64);
        while left > 0 {
            let Some(&(run, each)) = table.durations.get(self.duration_run) else { break };
            let step = left.min(run.saturating_sub(self.in_duration_run));
            ticks = ticks.saturating_add(u64::from(step) * u64::from(each));
            left -= step;
            self.in_duration_run += step;
            if self.in_duration_run >= run {
                (self.duration_run, self.in_duration_run) = (self.duration_run + 1, 0);
            }
        }
        ticks
    }
}

/// The head of an atom.
pub(crate) struct Atom {
    pub(crate) kind: [u8; 4],
    /// Bytes with the head; `None` up to the end.
    pub(crate) size: Option<u64>,
    head: u64,
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

    fn body(&self) -> Option<u64> {
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
fn atoms(body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        let atom = Atom::read(body.get(at..)?)?;
        let begin = at + atom.head as usize;
        let end = atom.size.map_or(body.len(), |size| at.saturating_add(size as usize)).min(body.len());
        at = end.max(at + 8);
        Some((atom.kind, body.get(begin..end)?))
    })
}

fn find<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    atoms(body).find(|(found, _)| found == kind).map(|(_, body)| body)
}

fn read_trak(body: &[u8], movie_scale: u32) -> Option<(Track, Trak)> {
    let media = find(body, b"mdia")?;
    if find(media, b"hdlr")?.get(8..12)? != b"soun" {
        return None;
    }
    let header = find(media, b"mdhd")?;
    let timescale = if header.first()? == &1 { header.be32(20) } else { header.be32(12) }?.max(1);
    let track_header = find(body, b"tkhd")?;
    let id = if track_header.first()? == &1 { track_header.be32(20) } else { track_header.be32(12) }?;
    let table = find(find(media, b"minf")?, b"stbl")?;
    let format = read_description(find(table, b"stsd")?);
    let pcm = if let Codec::Pcm(pcm) = format.codec { Some(pcm) } else { None };
    let enabled = track_header.get(3)? & 1 == 1;
    let table = read_table(table);
    let list = find(body, b"edts").and_then(|edits| find(edits, b"elst"));
    let edits = list.map(|list| read_edits(list, movie_scale, timescale)).unwrap_or_default();
    let total = table.ticks();
    // An edit list that shows nothing is none.
    let shows = edits.iter().any(|edit| edit.until > edit.from && (total == 0 || edit.from < total));
    let whole = Edit { from: 0, until: u64::MAX, at: 0.0, end: f64::INFINITY };
    let edits = if shows { edits } else { vec![whole] };
    Some((Track { format, default: enabled }, Trak { id, timescale, edits, table, defaults: (0, 0), pcm }))
}

fn read_edits(list: &[u8], movie_scale: u32, timescale: u32) -> Vec<Edit> {
    let long = list.first() == Some(&1);
    let size = if long { 20 } else { 12 };
    let count = list.be32(4).unwrap_or(0) as usize;
    let (mut edits, mut at) = (Vec::new(), 0.0);
    for entry in list.get(8..).unwrap_or(&[]).chunks_exact(size).take(count) {
        let (duration, media) = if long {
            (entry.be64(0), entry.be64(8).map(|time| time as i64))
        } else {
            (entry.be32(0).map(u64::from), entry.be32(4).map(|time| i64::from(time as i32)))
        };
        let (Some(duration), Some(media)) = (duration, media) else { break };
        let seconds = duration as f64 / f64::from(movie_scale);
        if let Ok(from) = u64::try_from(media) {
            // 0 is up to the end, where the length was not known.
            let (until, end) = if duration == 0 {
                (u64::MAX, f64::INFINITY)
            } else {
                // The clock of the movie is coarser than that of the track.
                let more = 1.0 / f64::from(movie_scale);
                (from.saturating_add(((seconds + more) * f64::from(timescale)).ceil() as u64), at + seconds + more)
            };
            edits.push(Edit { from, until, at, end });
        }
        at += seconds;
    }
    edits
}

fn read_table(body: &[u8]) -> Table {
    let entries = |kind: &[u8; 4], size: usize| {
        let body = find(body, kind).unwrap_or(&[]);
        let count = body.be32(4).unwrap_or(0) as usize;
        body.get(8..).unwrap_or(&[]).chunks_exact(size).take(count).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let pairs = |kind| entries(kind, 8).iter().filter_map(|entry| Some((entry.be32(0)?, entry.be32(4)?))).collect();
    let chunks = entries(b"stsc", 12).iter().filter_map(|entry| Some((entry.be32(0)?, entry.be32(4)?))).collect();
    let mut offsets: Vec<u64> = entries(b"stco", 4).iter().filter_map(|entry| entry.be32(0).map(u64::from)).collect();
    if offsets.is_empty() {
        offsets = entries(b"co64", 8).iter().filter_map(|entry| entry.be64(0)).collect();
    }
    let (equal, sizes, count) = match find(body, b"stsz") {
        Some(body) => {
            let (size, count) = (body.be32(4).unwrap_or(0), body.be32(8).unwrap_or(0));
            let each =
                body.get(12..).unwrap_or(&[]).chunks_exact(4).take(count as usize).filter_map(|size| size.be32(0));
            let sizes: Vec<u32> = if size == 0 { each.collect() } else { vec![size] };
            let count = if size == 0 { sizes.len() as u32 } else { count };
            (size != 0, sizes, count)
        }
        None => (false, Vec::new(), 0),
    };
    Table { durations: pairs(b"stts"), chunks, offsets, sizes, equal, count }
}

/// The first sample description.
fn read_description(body: &[u8]) -> Format {
    let Some((kind, entry)) = body.get(8..).and_then(|body| atoms(body).next()) else {
        return Format::other("no codec");
    };
    let name = kind.escape_ascii().to_string();
    let version = entry.be16(8).unwrap_or(0);
    let mut channels = usize::from(entry.be16(16).unwrap_or(0));
    let mut bits = usize::from(entry.be16(18).unwrap_or(16));
    let mut rate = entry.be32(24).unwrap_or(0) >> 16;
    let mut lpcm_flags = 0;
    let children = match version {
        1 => 44,
        2 => {
            rate = entry.be64(32).map_or(0.0, f64::from_bits).clamp(0.0, 1e9) as u32;
            channels = entry.be32(40).unwrap_or(0) as usize;
            bits = entry.be32(48).unwrap_or(16) as usize;
            lpcm_flags = entry.be32(52).unwrap_or(0);
            64
        }
        _ => 28,
    };
    let children = entry.get(children..).unwrap_or(&[]);
    // QuickTime keeps what belongs to the codec in an atom of its own.
    let wave = find(children, b"wave");
    let child = |kind| find(children, kind).or_else(|| wave.and_then(|wave| find(wave, kind)));
    let little = child(b"enda").and_then(|body| body.be16(0)) == Some(1);
    let plain = |codec| Format::new(codec, rate, channels);
    let with = |codec, setup: &[u8]| Format { setup: setup.to_vec(), ..plain(codec) };
    let pcm = |bytes, float, big, signed_byte| {
        let pcm = PcmFormat::of(bytes, float, big, rate, channels).map(|pcm| PcmFormat { signed_byte, ..pcm });
        pcm.map(|pcm| plain(Codec::Pcm(pcm)))
    };
    let law =
        |sample| Some(plain(Codec::Pcm(PcmFormat { sample, big_endian: false, signed_byte: false, rate, channels })));
    let format = match &kind {
        b"mp4a" => child(b"esds").map(|body| elementary(body, rate, channels)),
        b"twos" | b"sowt" => pcm(bits.div_ceil(8), false, &kind == b"twos", true),
        b"raw " | b"NONE" => pcm(bits.div_ceil(8), false, true, false),
        b"in24" => pcm(3, false, !little, false),
        b"in32" => pcm(4, false, !little, false),
        b"fl32" => pcm(4, true, !little, false),
        b"fl64" => pcm(8, true, !little, false),
        b"lpcm" => pcm(bits.div_ceil(8), lpcm_flags & 1 != 0, lpcm_flags & 2 != 0, lpcm_flags & 4 != 0),
        b"ipcm" | b"fpcm" => child(b"pcmC").and_then(|body| {
            let (flags, bits) = (*body.get(4)?, *body.get(5)?);
            pcm(usize::from(bits).div_ceil(8), &kind == b"fpcm", flags & 1 == 0, true)
        }),
        b"ulaw" => law(SampleFormat::MuLaw),
        b"alaw" => law(SampleFormat::ALaw),
        b".mp3" | b"ms\0U" => Some(plain(Codec::Mpeg(3))),
        b".mp2" | b"ms\0P" => Some(plain(Codec::Mpeg(2))),
        b"alac" => child(b"alac").and_then(|body| body.get(4..)).map(|cookie| with(Codec::Alac, cookie)),
        b"fLaC" => child(b"dfLa").and_then(|body| body.get(8..42)).and_then(|info| {
            let read = flac::StreamInfo::read(info)?;
            Some(Format { setup: info.to_vec(), ..Format::new(Codec::Flac, read.rate, read.channels) })
        }),
        b"Opus" => {
            child(b"dOps").and_then(opus_head).map(|head| Format { rate: opus::RATE, ..with(Codec::Opus, &head) })
        }
        b"ac-3" | b"sac3" => Some(Format::other("AC-3")),
        b"ec-3" => Some(Format::other("E-AC-3")),
        b"samr" => Some(Format::other("AMR")),
        b"sawb" => Some(Format::other("AMR-WB")),
        b"ima4" => Some(Format::other("IMA ADPCM of QuickTime")),
        b"enca" | b"drms" => Some(Format::other("encrypted audio")),
        _ => None,
    };
    format.unwrap_or_else(|| Format::other(name))
}

/// The identification header of Opus, which MP4 has in big-endian numbers.
fn opus_head(body: &[u8]) -> Option<Vec<u8>> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(*body.get(1)?);
    head.extend(body.be16(2)?.to_le_bytes());
    head.extend(body.be32(4)?.to_le_bytes());
    head.extend(body.be16(8)?.to_le_bytes());
    head.extend_from_slice(body.get(10..)?);
    Some(head)
}

/// What an elementary stream descriptor says.
fn elementary(body: &[u8], rate: u32, channels: usize) -> Format {
    let mut at = 4;
    let mut object = 0;
    // Descriptors have a tag and a length of up to four bytes; those of interest are within one another.
    while let Some(&tag) = body.get(at) {
        at += 1;
        let mut len = 0usize;
        for _ in 0..4 {
            let Some(&byte) = body.get(at) else { break };
            at += 1;
            len = len << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        match tag {
            3 => {
                let flags = body.get(at + 2).copied().unwrap_or(0);
                at += 3 + usize::from(flags >> 7) * 2 + usize::from(flags >> 5 & 1) * 2;
                if flags & 0x40 != 0 {
                    at += 1 + body.get(at).map_or(0, |&len| usize::from(len));
                }
            }
            4 => {
                object = body.get(at).copied().unwrap_or(0);
                at += 13;
            }
            5 if matches!(object, 0x40 | 0x66..=0x68) => {
                return aac_format(body.get(at..at.saturating_add(len).min(body.len())).unwrap_or(&[]));
            }
            _ => at = at.saturating_add(len),
        }
    }
    match object {
        0x69 | 0x6b => Format::new(Codec::Mpeg(3), rate, channels),
        0x40 | 0x66..=0x68 => Format::new(Codec::Aac, rate, channels),
        0xa5 => Format::other("AC-3"),
        0xa6 => Format::other("E-AC-3"),
        0xa9..=0xac => Format::other("DTS"),
        0xdd => Format::other("Vorbis in MP4"),
        0xe1 => Format::other("QCELP"),
        object => Format::other(format!("MPEG-4 object {object:#04x}")),
    }
}

/// What an AudioSpecificConfig says. High-efficiency AAC is read as what its plain half is: AAC-LC at half the rate, which
/// has all that is below a quarter of the full one.
pub(crate) fn aac_format(config: &[u8]) -> Format {
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
        index => AAC_RATES.get(index as usize).copied().unwrap_or(0),
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
        assert_eq!(aac_format(&[0x12, 0x10]), Format::new(Codec::Aac, 44_100, 2));
        // Explicit HE-AAC: object 5, 24 kHz, stereo, 48 kHz, object 2.
        assert_eq!(aac_format(&[0x2b, 0x11, 0x88, 0x00]), Format::new(Codec::Aac, 24_000, 2));
        assert!(matches!(aac_format(&[0x12, 0x30]).codec, Codec::Other(_)));
        assert!(matches!(aac_format(&[]).codec, Codec::Other(_)));
    }

    #[test]
    fn edits_are_placed_one_after_another() {
        let mut list = vec![0, 0, 0, 0, 0, 0, 0, 3];
        for (duration, media) in [(5000u32, -1i32), (1000, 16_000), (0, 48_000)] {
            list.extend(duration.to_be_bytes());
            list.extend(media.to_be_bytes());
            list.extend([0, 1, 0, 0]);
        }
        let edits = read_edits(&list, 1000, 16_000);
        let at: Vec<_> = edits.iter().map(|edit| (edit.from, edit.at)).collect();
        assert_eq!(at, [(16_000, 5.0), (48_000, 6.0)]);
        assert_eq!((edits[0].until, edits[1].until), (32_016, u64::MAX));
    }
}
