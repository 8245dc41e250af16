//! Samples at their places in time, at 16 kHz: gaps become silence, and a change of the sample rate is followed.
//!
//! The audio is cut into stretches without a gap and of one rate. Each is resampled by itself, and begins at the sample of
//! the output that is nearest to its time.

use crate::SAMPLE_RATE;
use crate::error::Result;
use crate::packet::Span;
use crate::resample::Resampler;

/// Times are rounded: to a millisecond in Matroska. A smaller gap than this is none, yet gaps do not add up, as times are
/// compared with the clock of the whole.
const TOLERANCE_S: f64 = 0.010;
/// A longer gap is not believed, nor more than four of them in all: times may be damaged too.
const MAX_GAP_S: f64 = 3600.0;
const MAX_GAPS_S: f64 = 4.0 * MAX_GAP_S;
/// Time that jumps back by more begins anew, where recordings were joined.
const REWIND_S: f64 = 0.5;
/// A time that leaps by more is not believed without another that agrees.
const LEAP_S: f64 = 0.5;
/// Silence is handed out in pieces.
const PIECE: u64 = 1 << 16;

pub(crate) struct Timeline {
    resampler: Option<(u32, Resampler)>,
    /// Of the stretch: its first output sample, and input samples so far.
    begin: u64,
    taken: u64,
    /// Seconds that are added to the times of packets.
    shift: f64,
    gaps_s: f64,
    /// Silence that is still to be handed out before what is in `after`.
    silence: u64,
    after: Vec<f32>,
}

/// Time that was passed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gap {
    None,
    /// Silence of so many seconds stands for it.
    Filled(f64),
    /// So long that the time cannot be right; it was not followed.
    NotBelieved,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self { resampler: None, begin: 0, taken: 0, shift: 0.0, gaps_s: 0.0, silence: 0, after: Vec::new() }
    }

    /// Seconds so far.
    pub(crate) fn now(&self) -> f64 {
        let stretch = self.resampler.as_ref().map_or(0.0, |(rate, _)| self.taken as f64 / f64::from(*rate));
        self.begin as f64 / f64::from(SAMPLE_RATE) + stretch
    }

    /// Whether the time of a packet is far from that of those before it.
    pub(crate) fn leaps(&self, span: &Span) -> bool {
        let off = span.start.map_or(0.0, |start| start + self.shift - self.now());
        off > LEAP_S || off < -LEAP_S && span.start.is_some_and(|start| start >= 0.0)
    }

    /// Appends the samples of a packet, at their place.
    pub(crate) fn place(&mut self, span: Span, rate: u32, samples: &[f32], out: &mut Vec<f32>) -> Result<Gap> {
        let mut start = span.start.map_or_else(|| self.now(), |start| start + self.shift);
        if self.now() - start > REWIND_S && span.start.is_some_and(|start| start >= 0.0) {
            self.shift += self.now() - start;
            start = self.now();
        }
        let shift = if span.start.is_some() { self.shift } else { 0.0 };
        // What is decoded and not to be heard.
        let first = ((span.from + shift - start) * f64::from(rate)).round().clamp(0.0, samples.len() as f64) as usize;
        let last =
            ((span.until + shift - start) * f64::from(rate)).round().clamp(first as f64, samples.len() as f64) as usize;
        let heard = &samples[first..last];
        if heard.is_empty() {
            return Ok(Gap::None);
        }
        let gap_s = start + first as f64 / f64::from(rate) - self.now();
        let gap = self.fill(gap_s, out);
        if self.resampler.as_ref().is_none_or(|(before, _)| *before != rate) {
            self.end_stretch(out);
            self.resampler = Some((rate, Resampler::new(rate)?));
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(heard, if self.silence > 0 { &mut self.after } else { out });
            self.taken += heard.len() as u64;
        }
        Ok(gap)
    }

    /// Fills a gap before what comes, if it is one.
    pub(crate) fn fill(&mut self, gap_s: f64, out: &mut Vec<f32>) -> Gap {
        if gap_s <= TOLERANCE_S {
            return Gap::None;
        }
        if gap_s > MAX_GAP_S || self.gaps_s + gap_s > MAX_GAPS_S {
            // What follows is taken to follow at once.
            self.shift -= gap_s;
            return Gap::NotBelieved;
        }
        self.gaps_s += gap_s;
        let until = ((self.now() + gap_s) * f64::from(SAMPLE_RATE)).round() as u64;
        self.end_stretch(out);
        let silence = until.saturating_sub(self.begin);
        self.begin += silence;
        if self.silence == 0 && silence < PIECE {
            out.resize(out.len() + silence as usize, 0.0);
        } else {
            self.hold(silence);
        }
        Gap::Filled(gap_s)
    }

    /// Silence behind silence that has not been handed out yet, with what is between.
    fn hold(&mut self, silence: u64) {
        if self.after.is_empty() {
            self.silence += silence;
        } else {
            self.after.resize(self.after.len() + silence as usize, 0.0);
        }
    }

    fn end_stretch(&mut self, out: &mut Vec<f32>) {
        if let Some((rate, mut resampler)) = self.resampler.take() {
            resampler.finish(if self.silence > 0 { &mut self.after } else { out });
            self.begin += (self.taken * u64::from(SAMPLE_RATE)).div_ceil(u64::from(rate));
            self.taken = 0;
        }
    }

    /// More of the silence that was begun and of what follows it, if any: to be asked for before more is placed.
    pub(crate) fn pending(&mut self, out: &mut Vec<f32>) {
        let step = self.silence.min(PIECE);
        out.resize(out.len() + step as usize, 0.0);
        self.silence -= step;
        if self.silence == 0 {
            out.append(&mut self.after);
        }
    }

    /// Ends the stream.
    pub(crate) fn finish(&mut self, out: &mut Vec<f32>) {
        self.end_stretch(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: f64) -> Span {
        Span::at(start)
    }

    #[test]
    fn gaps_are_silence_of_the_right_length() {
        for rate in [8_000, 16_000, 44_100] {
            let mut timeline = Timeline::new();
            let mut out = Vec::new();
            let second = vec![0.5; rate as usize];
            assert_eq!(timeline.place(at(0.0), rate, &second, &mut out).unwrap(), Gap::None);
            // Rounded times are no gap.
            assert_eq!(timeline.place(at(1.002), rate, &second, &mut out).unwrap(), Gap::None);
            assert!(matches!(timeline.place(at(12.0), rate, &second, &mut out).unwrap(), Gap::Filled(_)));
            while timeline.silence > 0 {
                timeline.pending(&mut out);
            }
            timeline.finish(&mut out);
            assert_eq!(out.len(), 13 * 16_000, "{rate}");
            assert_eq!(out[5 * 16_000], 0.0);
            assert!((out[12 * 16_000 + 8000] - 0.5).abs() < 1e-3);
        }
    }

    #[test]
    fn rates_may_change_and_edges_are_cut() {
        let mut timeline = Timeline::new();
        let mut out = Vec::new();
        timeline.place(Span { start: Some(-0.5), from: 0.0, until: 0.25 }, 8_000, &[0.5; 8000], &mut out).unwrap();
        assert_eq!(timeline.now(), 0.25);
        timeline.place(Span::NEXT, 48_000, &[0.5; 48_000], &mut out).unwrap();
        timeline.finish(&mut out);
        assert_eq!(out.len(), 20_000);
    }

    #[test]
    fn absurd_times_are_not_followed() {
        let mut timeline = Timeline::new();
        let mut out = Vec::new();
        timeline.place(at(0.0), 16_000, &[0.5; 16_000], &mut out).unwrap();
        assert_eq!(timeline.place(at(1e9), 16_000, &[0.5; 16_000], &mut out).unwrap(), Gap::NotBelieved);
        // Times that go on from there are as good as those before.
        assert_eq!(timeline.place(at(1e9 + 1.0), 16_000, &[0.5; 16_000], &mut out).unwrap(), Gap::None);
        // Back again: joined to what was.
        assert_eq!(timeline.place(at(2.0), 16_000, &[0.5; 16_000], &mut out).unwrap(), Gap::None);
        assert_eq!(timeline.now(), 4.0);
    }
}
