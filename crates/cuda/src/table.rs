//! What the host writes for a pass, as the kernels read it (twins of the structs in kernels/common.cuh).

use bytemuck::{Pod, Zeroable};

use crate::cut::Cut;
use crate::driver::Address;
use crate::limits::{KEY_CHUNK, KEY_RUN, SLOT_BLOCK};

/// One position of a pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Row {
    /// The stream's key and value ring, bf16 `[ring / 32][layers][key, value][32 slots][kv_dim]`.
    pub kv: Address,
    /// The token's audio embedding, f32 `[dim]`.
    pub audio: Address,
    /// The stream's delay scales, f32 `[layers][dim]`, or none.
    pub ada: Address,
    /// Slots of the ring, a multiple of [`SLOT_BLOCK`].
    pub ring: u32,
    /// Absolute position.
    pub position: u32,
    /// Input token.
    pub id: u32,
    /// First partial result.
    pub partial: u32,
    /// Number of partial results.
    pub partials: u32,
    /// So many of them make a run of 256 keys.
    pub run: u32,
    /// So many fewer make the first run, whose first keys the row does not see.
    pub skip: u32,
    /// Slot of the position.
    pub slot: u32,
    /// The lowest id that may be a runner-up, [`Row::UNASKED`] where none are asked for.
    pub runners_up: u32,
    /// Nothing.
    pub unused: u32,
}

impl Row {
    /// No id.
    pub const UNASKED: u32 = u32::MAX;

    /// A position of the stream whose keys and values are in a ring at `kv`.
    pub fn new(kv: Address, ring: usize, position: usize) -> Self {
        let slot = (position % ring) as u32;
        let runners_up = Self::UNASKED;
        Self { kv, ring: ring as u32, position: position as u32, slot, runners_up, ..Self::default() }
    }
}

/// Work of one block of attention (times the key heads).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Item {
    /// The stream's key and value ring, as the rows have it.
    pub kv: Address,
    /// First row.
    pub row: u32,
    /// Rows, consecutive positions of one stream.
    pub rows: u32,
    /// Absolute position of the first row.
    pub position: u32,
    /// First key, a multiple of [`KEY_CHUNK`].
    pub key0: u32,
    /// One past the last key.
    pub key1: u32,
    /// Where the first key lies in the ring.
    pub slot: u32,
    /// Slots of the ring.
    pub ring: u32,
    /// First position of the stream in this pass: the keys before it are there already.
    pub fresh: u32,
    /// The first row's partial result.
    pub partial: u32,
    /// How many partial results each row has.
    pub partials: u32,
}

/// One stream's part of an encode pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Span {
    /// Mel frames carried over.
    pub mel_carry: Address,
    /// First convolution's column carried over.
    pub column_carry: Address,
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
    /// For up to so many of each; items come last, so that a pass sends only those that it has.
    pub fn new(max_rows: usize, max_tokens: usize, max_items: usize) -> Self {
        let rows = size_of::<Counts>();
        let tokens = rows + max_rows * size_of::<Row>();
        let spans = tokens + max_tokens * size_of::<Row>();
        let items = spans + max_tokens * size_of::<Span>();
        Self { rows, tokens, spans, items, bytes: items + max_items * size_of::<Item>() }
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

    /// Adds consecutive positions of one stream and the items of their attention.
    pub fn push(&mut self, rows: impl IntoIterator<Item = Row>, cut: Cut) {
        let begin = self.rows.len();
        self.rows.extend(rows);
        let fresh = self.rows.get(begin).map_or(0, |row| row.position);
        for first in (begin..self.rows.len()).step_by(cut.rows()) {
            let last = (first + cut.rows()).min(self.rows.len()) - 1;
            let oldest = (self.rows[first].position as usize + 1).saturating_sub(cut.window);
            let end = self.rows[last].position as usize + 1;
            let step = cut.keys(end - oldest);
            let start = oldest / step * step;
            let Row { kv, ring, position, .. } = self.rows[first];
            assert!(ring.is_multiple_of(SLOT_BLOCK as u32), "attention copies blocks of slots");
            let (rows, partials) = (last - first + 1, (end - start).div_ceil(step) as u32);
            let item =
                Item { kv, row: first as u32, rows: rows as u32, position, ring, fresh, partials, ..Item::default() };
            for (partial, key0) in (self.partials..).zip((start..end).step_by(step)) {
                let key1 = key0.saturating_add(step).min(end) as u32;
                let key0 = key0.max(oldest / KEY_CHUNK * KEY_CHUNK).min(key0 + step - KEY_CHUNK) as u32;
                self.items.push(Item { key0, key1, slot: key0 % ring, partial, ..item });
            }
            for row in &mut self.rows[first..=last] {
                (row.partial, row.partials) = (self.partials, partials);
                (row.run, row.skip) = ((KEY_RUN / step) as u32, (start % KEY_RUN / step) as u32);
                self.partials += partials;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::queries;

    fn span(position: usize, rows: usize) -> impl Iterator<Item = Row> {
        (position..position + rows).map(|p| Row::new(Address::NONE, 512, p))
    }

    #[test]
    fn every_row_meets_its_window_once() {
        for (group, window, position, rows) in [
            (4, 8192, 0, 39),
            (4, 8192, 9000, 1),
            (4, 8192, 2304, 8),
            (1, 20, 250, 31),
            (3, 750, 1000, 128),
            (16, 300, 700, 2),
        ] {
            let cut = Cut { group, window, max_rows: rows };
            let mut table = Table::default();
            table.push(span(position, rows), cut);
            for (i, row) in table.rows.iter().enumerate() {
                assert_eq!(row.slot, row.position % 512);
                let mine = |item: &&Item| (item.row..item.row + item.rows).contains(&(i as u32));
                let items: Vec<&Item> = table.items.iter().filter(mine).collect();
                assert_eq!(items.len() as u32, row.partials);
                assert!(items.len() <= cut.partials());
                assert!(items.iter().enumerate().all(|(n, item)| {
                    item.partial + (i as u32 - item.row) * item.partials == row.partial + n as u32
                }));
                assert!(items.windows(2).all(|w| w[0].key1 == w[1].key0));
                assert!((items[0].key0 as usize).is_multiple_of(KEY_CHUNK));
                assert!(items[0].key0 as usize <= (row.position as usize + 1).saturating_sub(window));
                assert!(items.last().unwrap().key1 > row.position);
                assert!(items.iter().all(|item| item.rows as usize * group <= queries(cut.few())));
            }
        }
    }

    /// Attention reads whole chunks: no block of slots that no position up to the newest lies beside in a chunk.
    #[test]
    fn what_is_read_has_memory() {
        for (ring, window, position, rows) in [(96, 20, 60, 9), (96, 20, 95, 1), (512, 300, 0, 1), (512, 8192, 31, 2)] {
            let cut = Cut { group: 4, window, max_rows: rows };
            let mut table = Table::default();
            table.push((position..position + rows).map(|p| Row::new(Address::NONE, ring, p)), cut);
            let slots = (position + rows).next_multiple_of(KEY_CHUNK).min(ring) as u32;
            for item in &table.items {
                let (mut slot, blocks) = (item.slot, item.key1.div_ceil(64) - item.key0 / 64);
                for _ in 0..2 * blocks {
                    assert!(
                        slot.is_multiple_of(SLOT_BLOCK as u32) && slot < slots,
                        "{item:?} reads slot {slot} of {slots}"
                    );
                    slot = (slot + SLOT_BLOCK as u32) % ring as u32;
                }
            }
        }
    }

    #[test]
    fn partial_results_do_not_overlap() {
        let cut = Cut { group: 4, window: 300, max_rows: 10 };
        let mut table = Table::default();
        table.push(span(500, 9), cut);
        table.push(span(77, 1), cut);
        let mut all: Vec<u32> = table.rows.iter().flat_map(|r| r.partial..r.partial + r.partials).collect();
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(i, &p)| p == i as u32));
    }

    #[test]
    fn sends_only_what_it_has() {
        let layout = Layout::new(8, 2, 10);
        let mut table = Table::default();
        table.push(span(3, 2), Cut { group: 1, window: 100, max_rows: 2 });
        let mut out = vec![0; layout.bytes];
        assert_eq!(table.write(&layout, &mut out), layout.items + size_of::<Item>());
        let counts: Counts = bytemuck::pod_read_unaligned(&out[..16]);
        assert_eq!(counts, Counts { rows: 2, items: 1, frames: 0, tokens: 0 });
    }
}
