//! Where the turns of a conversation begin and end.

use std::collections::VecDeque;
use std::time::Duration;

use voxtral::{Pauses, SAMPLE_RATE};

use super::session::Detection;

/// Samples that are looked at together: fewer than the detector takes at once, so that no two changes are in them.
pub(super) const PIECE: usize = 256;

/// Samples after the beginning of speech at which the detector is sure of it, at the latest.
const CERTAIN: usize = 1024 + PIECE;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Somebody began to speak, here with what belongs to it of what was heard before.
    Started(u64),
    /// The speaker has paused for so long that the turn ends here.
    Stopped(u64),
}

/// What was heard and belongs to no turn yet, and where turns change, as far as it is the server that says so. Positions are samples of the
/// session.
#[derive(Default)]
pub(super) struct Turns {
    detector: Option<Detector>,
    /// The newest samples that belong to no turn.
    recent: VecDeque<f32>,
    heard: u64,
}

struct Detector {
    detection: Detection,
    pauses: Pauses,
    /// Where it began to listen.
    from: u64,
}

impl Detector {
    fn new(detection: Detection, from: u64) -> Self {
        Self { detection, pauses: Pauses::new(detection.silence()).with_threshold(detection.threshold()), from }
    }
}

fn samples(time: Duration) -> usize {
    (time.as_millis() * u128::from(SAMPLE_RATE) / 1000) as usize
}

impl Turns {
    /// Finds turns from here on as `detection` says.
    pub(super) fn detect(&mut self, detection: Option<Detection>) {
        if self.detector.as_ref().map(|detector| detector.detection) != detection {
            self.detector = detection.map(|detection| Detector::new(detection, self.heard));
        }
    }

    /// Whether the client says where turns end.
    pub(super) fn are_manual(&self) -> bool {
        self.detector.is_none()
    }

    /// Begins to listen anew, as if nothing had been said yet.
    pub(super) fn restart(&mut self) {
        if let Some(detector) = &mut self.detector {
            *detector = Detector::new(detector.detection, self.heard);
        }
    }

    /// Hears samples, at most [`PIECE`], during a turn or not.
    pub(super) fn hear(&mut self, piece: &[f32], in_turn: bool) -> Option<Change> {
        self.recent.extend(piece);
        self.heard += piece.len() as u64;
        let Detector { detection, pauses, from } = self.detector.as_mut()?;
        let mut found = Vec::new();
        pauses.push(piece, &mut found);
        if let Some(at) = found.pop() {
            return in_turn.then_some(Change::Stopped(*from + at));
        }
        let prefix = samples(detection.prefix());
        match pauses.speech_from() {
            Some(at) if !in_turn => {
                let begin = (*from + at).saturating_sub(prefix as u64);
                Some(Change::Started(begin.max(self.heard - self.recent.len() as u64)))
            }
            _ => None,
        }
    }

    /// Samples that belong to no turn.
    pub(super) fn recent(&self) -> usize {
        self.recent.len()
    }

    /// Takes what belongs to no turn, up to `end`.
    pub(super) fn take_until(&mut self, end: u64) -> Vec<f32> {
        let later = (self.heard.saturating_sub(end) as usize).min(self.recent.len());
        self.recent.drain(..self.recent.len() - later).collect()
    }

    /// Forgets what is too old to belong to a turn that begins.
    pub(super) fn forget(&mut self) {
        let prefix = self.detector.as_ref().map_or(0, |detector| samples(detector.detection.prefix()));
        let old = self.recent.len().saturating_sub(prefix + CERTAIN);
        self.recent.drain(..old);
    }

    /// Forgets all that belongs to no turn.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.restart();
    }
}
