//! The audio tracks of the index: their formats, tables and edit lists.

use super::atom::find;
use super::description::read_description;
use super::table::{Table, read_table};
use crate::packet::{Codec, Numbers, Track};
use crate::pcm::PcmFormat;

/// One audio track.
pub(super) struct Trak {
    pub(super) id: u32,
    /// Ticks a second.
    pub(super) timescale: u32,
    pub(super) edits: Vec<Edit>,
    pub(super) table: Table,
    /// Ticks and bytes of the samples of fragments that do not say.
    pub(super) defaults: (u32, u32),
    /// How plain samples are written.
    pub(super) pcm: Option<PcmFormat>,
}

/// A part of the media at a place in the presentation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Edit {
    /// Ticks of the media.
    pub(super) from: u64,
    pub(super) until: u64,
    /// Seconds of the presentation.
    pub(super) at: f64,
    pub(super) end: f64,
}

/// The track in the body of `trak`; `None` for what is none of audio.
pub(super) fn read_trak(body: &[u8], movie_scale: u32) -> Option<(Track, Trak)> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
