//! MP4, M4A and MOV, whole or in fragments: samples of a track by its tables, at the times of its edit list.

mod atom;
mod description;
mod table;
mod track;

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::input::Input;
use crate::packet::{Container, Event, Numbers, Span, Track};

pub(crate) use atom::{Atom, is_top_level};
use atom::{atoms, find};
use table::{Cursor, Sample};
use track::{Edit, Trak, read_trak};

/// A larger index is not believed: ten hours of audio have one of 10 MB.
const MAX_INDEX: u64 = 64 << 20;
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
    /// Where the data of the fragment ends.
    data_end: u64,
    /// Ticks at which the next fragment begins, where it does not say.
    run_time: u64,
    cut: bool,
    /// Bytes were read over that are no structure.
    broken: bool,
    ended: bool,
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
                    input.spool()?;
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
            data_end: u64::MAX,
            run_time: 0,
            cut: false,
            broken: false,
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
            if !self.read_fragment(input)? || self.broken {
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
        let mut broken = false;
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
                let bytes = input.peek(64 << 10)?;
                let (ended, found) =
                    (bytes.len() < 64 << 10, bytes.windows(4).skip(5).position(|kind| kind == b"moof"));
                match found {
                    Some(found) => input.skip(found as u64 + 1)?,
                    None if ended => {
                        self.cut = true;
                        return Ok(false);
                    }
                    None => input.skip((64 << 10) - 16)?,
                };
                broken = true;
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
                let begin = input.position() + data.map_or(0, |_| 8);
                let base = self.read_moof(&body, at);
                self.move_run(base.unwrap_or(at), at, begin..=self.next_atom);
                // A size that is a lie is not to cost the fragments behind it.
                if input.len().is_some_and(|len| self.next_atom > len)
                    && let Some(last) = self.run.back()
                {
                    self.next_atom = last.offset.saturating_add(u64::from(last.size));
                }
                self.data_end = if data.is_some() { self.next_atom } else { u64::MAX };
                self.broken = broken;
                return Ok(true);
            }
            let Some(size) = atom.size else { return Ok(false) };
            if input.skip(size)? < size {
                self.cut |= input.len().is_none_or(|len| at.saturating_add(size) > len);
                return Ok(false);
            }
        }
    }

    /// Takes the samples of the chosen track from the body of `moof`, which is at a place in the file. The base of their addresses,
    /// where it is an address in the file.
    fn read_moof(&mut self, body: &[u8], moof: u64) -> Option<u64> {
        let mut explicit = None;
        let &Trak { id, defaults: (default_ticks, default_size), .. } = self.trak();
        for (_, body) in atoms(body).filter(|(kind, _)| kind == b"traf") {
            let Some(head) = find(body, b"tfhd") else { continue };
            let flags = head.be32(0).unwrap_or(0);
            if head.be32(4) != Some(id) {
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
            explicit = field(1, 8);
            let base = explicit.unwrap_or(moof);
            field(2, 4);
            let duration = field(8, 4).unwrap_or(u64::from(default_ticks));
            let size = field(0x10, 4).unwrap_or(u64::from(default_size));
            if let Some(time) = find(body, b"tfdt") {
                let time = if time.first() == Some(&1) { time.be64(4) } else { time.be32(4).map(u64::from) };
                self.run_time = time.unwrap_or(self.run_time);
            }
            let mut offset = base;
            for (_, run) in atoms(body).filter(|(kind, _)| kind == b"trun") {
                offset = self.read_run(run, base, offset, (duration, size));
            }
        }
        explicit
    }

    /// Addresses in the file are wrong where bytes were put in or taken out before them. Those that lead out of the data, and
    /// into it if they are counted from the fragment, are.
    fn move_run(&mut self, base: u64, moof: u64, data: RangeInclusive<u64>) {
        let Some((first, last)) = self.run.front().zip(self.run.back()) else { return };
        let (from, to) = (first.offset, last.offset.saturating_add(last.size.into()));
        let moved = |offset: u64| offset.wrapping_sub(base).wrapping_add(moof);
        let fits = |from, to| data.contains(&from) && data.contains(&to);
        if !fits(from, to) && fits(moved(from), moved(to)) {
            self.run.iter_mut().for_each(|sample| sample.offset = moved(sample.offset));
        }
    }

    /// Appends the samples of a run, which begins at `offset` if it does not say where from `base` on, and whose samples have these
    /// `defaults`, ticks and bytes. Where it ends.
    fn read_run(&mut self, run: &[u8], base: u64, mut offset: u64, defaults: (u64, u64)) -> u64 {
        let flags = run.be32(0).unwrap_or(0);
        let count = run.be32(4).unwrap_or(0) as usize;
        let mut at = 8;
        if flags & 1 != 0 {
            offset = base.wrapping_add_signed(i64::from(run.be32(at).unwrap_or(0) as i32));
            at += 4;
        }
        at += if flags & 4 != 0 { 4 } else { 0 };
        for _ in 0..count.min(MAX_RUN.saturating_sub(self.run.len())) {
            let mut field = |flag: u32, default: u64| {
                if flags & flag == 0 {
                    return Some(default);
                }
                at += 4;
                run.be32(at - 4).map(u64::from)
            };
            let (Some(ticks), Some(size), Some(_), Some(_)) =
                (field(0x100, defaults.0), field(0x200, defaults.1), field(0x400, 0), field(0x800, 0))
            else {
                break;
            };
            self.run.push_back(Sample { offset, size: size as u32, time: self.run_time, ticks });
            self.run_time = self.run_time.saturating_add(ticks);
            offset = offset.saturating_add(size);
        }
        offset
    }

    /// Where a sample belongs in the presentation.
    fn place(&self, edit: Edit, sample: &Sample) -> Span {
        let seconds = |ticks: u64| ticks as f64 / f64::from(self.trak().timescale);
        let start = edit.at + seconds(sample.time) - seconds(edit.from);
        Span { start: Some(start), from: edit.at, until: edit.end }
    }

    /// Ends the track, of which all from `from` on is missing, in ticks.
    fn cut_off(&mut self, from: u64) -> Event {
        self.ended = true;
        let trak = self.trak();
        let total = if self.fragmented { 0 } else { trak.table.ticks() };
        let until = self.edits.front().map_or(u64::MAX, |edit| edit.until).min(total);
        let seconds = until.saturating_sub(from) as f64 / f64::from(trak.timescale);
        Event::Lost { seconds, what: "cut off" }
    }

    /// Goes on with the next edit.
    fn next_edit(&mut self, input: &mut Input, done: Edit) {
        self.edits.pop_front();
        let Some(next) = self.edits.front() else { return };
        // What the next edit shows may be before or behind what this one did.
        if !self.fragmented && (input.len().is_some() || next.from >= done.until) {
            self.cursor = Cursor::default();
        }
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
                if std::mem::take(&mut self.broken) {
                    return Ok(Event::Lost { seconds: 0.0, what: "bytes that are no structure" });
                }
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
            if self.fragmented && sample.offset.saturating_add(u64::from(sample.size)) > self.data_end {
                return Ok(Event::Lost { seconds, what: "a packet that is not in its place" });
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
