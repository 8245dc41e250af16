//! The sample table of a track: where each sample is, and when.

use super::atom::find;
use crate::packet::Numbers;
use crate::pcm::PcmFormat;

/// Where samples are and how long they last.
#[derive(Clone, Default)]
pub(super) struct Table {
    /// Runs of equal duration: samples, ticks.
    durations: Vec<(u32, u32)>,
    /// First chunk (from 1) and samples in each chunk from there on.
    chunks: Vec<(u32, u32)>,
    offsets: Vec<u64>,
    /// Bytes of each, or of all where there is only one.
    sizes: Vec<u32>,
    equal: bool,
    pub(super) count: u32,
}

/// A place in a table.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    pub(super) sample: u32,
    time: u64,
    duration_run: usize,
    in_duration_run: u32,
    chunk: usize,
    chunk_run: usize,
    in_chunk: u32,
    /// Bytes from the beginning of the chunk.
    at: u64,
}

/// One sample, or plain ones that lie one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) offset: u64,
    /// Bytes.
    pub(super) size: u32,
    /// Ticks of the media, as its length.
    pub(super) time: u64,
    pub(super) ticks: u64,
}

impl Table {
    /// Ticks of all samples.
    pub(super) fn ticks(&self) -> u64 {
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
    pub(super) fn next(&mut self, table: &Table, pcm: Option<PcmFormat>, piece: u32) -> Option<Sample> {
        if self.sample >= table.count {
            return None;
        }
        let in_chunk = self.samples_in_chunk(table)?;
        let &offset = table.offsets.get(self.chunk)?;
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

    /// Samples of the chunk here. Chunks without any are passed over, a whole run at a time: there may be many.
    fn samples_in_chunk(&mut self, table: &Table) -> Option<u32> {
        loop {
            let &(_, count) = table.chunks.get(self.chunk_run)?;
            match table.chunks.get(self.chunk_run + 1) {
                Some(&(first, _)) if u64::from(first) <= self.chunk as u64 + 1 => self.chunk_run += 1,
                _ if count > 0 => return Some(count),
                Some(&(first, _)) => (self.chunk, self.chunk_run) = (first as usize - 1, self.chunk_run + 1),
                None => return None,
            }
        }
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

/// The table in the body of `stbl`.
pub(super) fn read_table(body: &[u8]) -> Table {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_without_samples_are_passed_over_however_many_runs_they_are() {
        const CHUNKS: u32 = 200_000;
        let table = Table {
            durations: vec![(1, 1024)],
            chunks: (1..CHUNKS).map(|chunk| (chunk, 0)).chain([(CHUNKS, 1)]).collect(),
            offsets: (0..CHUNKS.into()).collect(),
            sizes: vec![100],
            equal: true,
            count: 1,
        };
        let sample = Cursor::default().next(&table, None, 1).unwrap();
        assert_eq!((sample.offset, sample.size, sample.time, sample.ticks), (u64::from(CHUNKS) - 1, 100, 0, 1024));
    }
}
