//! What the host writes for a pass, as the kernels read it (twins of the structs in kernels/common.cuh).

use bytemuck::{Pod, Zeroable};

/// Keys of one partial result of the decoder's attention, at absolute positions.
pub const KEY_RUN: usize = 256;

/// Rows of a tile of queries in attention: consecutive positions times the query heads of a group.
pub const QUERY_TILE: usize = 16;

/// One position of a pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Row {
    /// The stream's key and value ring.
    pub kv: u64,
    /// The token's audio embedding.
    pub audio: u64,
    /// The stream's delay scales, or 0.
    pub ada: u64,
    /// Slots of the ring.
    pub ring: u32,
    /// Absolute position.
    pub position: u32,
    /// Input token.
    pub id: u32,
    /// First partial result.
    pub partial: u32,
    /// Number of partial results.
    pub partials: u32,
    /// So that there is no padding.
    pub unused: u32,
}

/// Work of one block of attention (times the key heads).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Item {
    /// First row.
    pub row: u32,
    /// Rows, consecutive positions of one stream.
    pub rows: u32,
    /// First key, a multiple of [`KEY_RUN`].
    pub key0: u32,
    /// One past the last key.
    pub key1: u32,
    /// Which of the rows' partial results.
    pub partial: u32,
}

/// One stream's part of an encode pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Span {
    /// Mel frames carried over.
    pub mel_carry: u64,
    /// First convolution's column carried over.
    pub column_carry: u64,
    /// First frame within the pass.
    pub frame: u32,
    /// Frames.
    pub frames: u32,
}

/// Begins every table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counts {
    /// Decoder or encoder positions.
    pub rows: u32,
    /// Attention items.
    pub items: u32,
    /// Mel frames.
    pub frames: u32,
    /// Tokens of audio.
    pub tokens: u32,
}

/// Where the parts of a table lie, in bytes: counts, rows, token rows (encoder), spans (encoder), items.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Room for rows.
    pub max_rows: usize,
    /// Room for items.
    pub max_items: usize,
    /// Offset of the rows.
    pub rows: usize,
    /// Offset of the token rows.
    pub tokens: usize,
    /// Offset of the spans.
    pub spans: usize,
    /// Offset of the items.
    pub items: usize,
    /// Length of all.
    pub bytes: usize,
}

impl Layout {
    /// Room for so many of each; items come last, so that a pass sends only those that it has.
    pub fn new(max_rows: usize, max_tokens: usize, max_items: usize) -> Self {
        let rows = size_of::<Counts>();
        let tokens = rows + max_rows * size_of::<Row>();
        let spans = tokens + max_tokens * size_of::<Row>();
        let items = spans + max_tokens * size_of::<Span>();
        Self { max_rows, max_items, rows, tokens, spans, items, bytes: items + max_items * size_of::<Item>() }
    }
}

/// A table under construction.
#[derive(Debug, Default)]
pub struct Table {
    /// Positions.
    pub rows: Vec<Row>,
    /// Tokens: where their embeddings go.
    pub tokens: Vec<Row>,
    /// Streams.
    pub spans: Vec<Span>,
    /// Attention.
    pub items: Vec<Item>,
    partials: u32,
}

impl Table {
    /// Empties it for the next pass.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.tokens.clear();
        self.spans.clear();
        self.items.clear();
        self.partials = 0;
    }

    /// Adds consecutive positions of one stream and, for attention of `group` query heads a key head within `window`, their items:
    /// in the decoder (`runs`) one for each run of keys, whose partial results are joined afterwards; else one for all keys.
    pub fn push(&mut self, rows: impl IntoIterator<Item = Row>, group: usize, window: usize, runs: bool) {
        let begin = self.rows.len();
        self.rows.extend(rows);
        for first in (begin..self.rows.len()).step_by((QUERY_TILE / group).max(1)) {
            let last = (first + (QUERY_TILE / group).max(1)).min(self.rows.len()) - 1;
            let oldest = (self.rows[first].position as usize + 1).saturating_sub(window);
            let end = self.rows[last].position as usize + 1;
            let count = (last - first + 1) as u32;
            let step = if runs { KEY_RUN } else { usize::MAX };
            let mut key0 = oldest / KEY_RUN * KEY_RUN;
            let mut run = 0;
            while key0 < end {
                let key1 = key0.saturating_add(step).min(end);
                let (row, key0_, key1_) = (first as u32, key0 as u32, key1 as u32);
                self.items.push(Item { row, rows: count, key0: key0_, key1: key1_, partial: run });
                (key0, run) = (key1, run + 1);
            }
            for row in &mut self.rows[first..=last] {
                (row.partial, row.partials) = (self.partials, run);
                self.partials += run;
            }
        }
    }

    /// Writes it where the kernels look, and returns how many bytes they need to see.
    pub fn write(&self, layout: &Layout, out: &mut [u8]) -> usize {
        let counts = Counts {
            rows: self.rows.len() as u32,
            items: self.items.len() as u32,
            frames: self.spans.iter().map(|s| s.frames).sum(),
            tokens: self.tokens.len() as u32,
        };
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, bytemuck::bytes_of(&counts));
        put(layout.rows, bytemuck::cast_slice(&self.rows));
        put(layout.tokens, bytemuck::cast_slice(&self.tokens));
        put(layout.spans, bytemuck::cast_slice(&self.spans));
        put(layout.items, bytemuck::cast_slice(&self.items));
        layout.items + self.items.len() * size_of::<Item>()
    }
}

/// Most partial results of a row.
pub fn max_runs(window: usize) -> usize {
    (window + QUERY_TILE).div_ceil(KEY_RUN) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(position: usize, rows: usize) -> impl Iterator<Item = Row> {
        (position..position + rows).map(|p| Row { position: p as u32, ring: 512, ..Row::default() })
    }

    #[test]
    fn every_row_meets_its_window_once() {
        for (group, window, position, rows) in
            [(4, 8192, 0, 39), (4, 8192, 9000, 1), (1, 20, 250, 31), (3, 750, 1000, 128)]
        {
            let mut table = Table::default();
            table.push(span(position, rows), group, window, true);
            for (i, row) in table.rows.iter().enumerate() {
                let mine = |item: &&Item| (item.row..item.row + item.rows).contains(&(i as u32));
                let items: Vec<&Item> = table.items.iter().filter(mine).collect();
                assert_eq!(items.len() as u32, row.partials);
                assert!(items.len() <= max_runs(window));
                assert!(items.iter().enumerate().all(|(n, item)| item.partial == n as u32));
                assert!(items.windows(2).all(|w| w[0].key1 == w[1].key0));
                assert!((items[0].key0 as usize).is_multiple_of(KEY_RUN));
                assert!(items[0].key0 as usize <= (row.position as usize + 1).saturating_sub(window));
                assert!(items.last().unwrap().key1 > row.position);
            }
        }
    }

    #[test]
    fn partial_results_do_not_overlap() {
        let mut table = Table::default();
        table.push(span(500, 9), 4, 300, true);
        table.push(span(77, 1), 4, 300, true);
        let mut all: Vec<u32> = table.rows.iter().flat_map(|r| r.partial..r.partial + r.partials).collect();
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(i, &p)| p == i as u32));
    }

    #[test]
    fn sends_only_what_it_has() {
        let layout = Layout::new(8, 2, 10);
        let mut table = Table::default();
        table.push(span(3, 2), 1, 100, false);
        let mut out = vec![0; layout.bytes];
        assert_eq!(table.write(&layout, &mut out), layout.items + size_of::<Item>());
        let counts: Counts = bytemuck::pod_read_unaligned(&out[..16]);
        assert_eq!(counts, Counts { rows: 2, items: 1, frames: 0, tokens: 0 });
    }
}
