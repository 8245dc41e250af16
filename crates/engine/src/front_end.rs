//! From samples to log-mel frames, with the silence that the schedule asks for, on the thread that pushes.

use std::sync::Arc;
use std::time::Duration;

use voxtral_audio::{MelConfig, MelStream, Pauses};
use voxtral_model::{Model, Tokenizer};

use crate::{EngineError, Schedule};

/// What the engine keeps of a model; the weights are the backend's.
pub(crate) struct ModelParts {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) sample_rate: usize,
    pub(crate) samples_per_token: usize,
    /// Log-mel values of a token.
    pub(crate) token_values: usize,
    /// A front-end that has heard the left pad.
    begun: MelStream,
    /// The left pad's frames, `[frames, mel_bins]`.
    left_frames: Vec<f32>,
}

impl ModelParts {
    pub(crate) fn new(model: &Model) -> Result<Self, EngineError> {
        let audio = &model.config.audio;
        let config = MelConfig {
            sample_rate: audio.sample_rate,
            mel_bins: audio.mel_bins,
            hop: audio.hop,
            window: audio.window,
            log_mel_max: audio.log_mel_max,
        };
        let mut begun = MelStream::new(config).map_err(|e| EngineError::FrontEnd(Arc::new(e)))?;
        let mut left_frames = Vec::new();
        begun.push(&vec![0.0; model.tokenizer.left_pad_tokens() * audio.samples_per_token], &mut left_frames);
        Ok(Self {
            tokenizer: Arc::new(model.tokenizer.clone()),
            sample_rate: audio.sample_rate,
            samples_per_token: audio.samples_per_token,
            token_values: model.config.frames_per_token() * audio.mel_bins,
            begun,
            left_frames,
        })
    }

    /// The frames of what all streams begin with.
    pub(crate) fn constant_frames(&self, schedule: &Schedule) -> &[f32] {
        &self.left_frames[..schedule.constant_tokens() * self.token_values]
    }

    /// A front-end for a recording, which tells of pauses of at least `endpoint`, and the frames that come before it and are not constant.
    pub(crate) fn begin(&self, schedule: Schedule, endpoint: Option<Duration>) -> (FrontEnd, Vec<f32>) {
        let values = schedule.constant_tokens() * self.token_values;
        let pauses = endpoint.map(Pauses::new);
        let front = FrontEnd { mel: self.begun.clone(), schedule, pauses, samples: 0, silence: 0, last: None };
        (front, self.left_frames[values..].to_vec())
    }
}

/// A place in the audio up to which all that was said is to come out: the end, a flush, or a pause that has lasted long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Samples pushed before it.
    pub(crate) samples: u64,
    /// Samples of silence inserted before it, and at it.
    pub(crate) silence_before: u64,
    pub(crate) silence: u64,
    /// Positions whose predictions bring out all of it.
    pub(crate) positions: usize,
}

/// The front-end of one session.
pub(crate) struct FrontEnd {
    mel: MelStream,
    schedule: Schedule,
    pauses: Option<Pauses>,
    /// Samples pushed.
    samples: u64,
    /// Samples of silence that flushes have inserted.
    silence: u64,
    /// The last flush, if no sample has come since.
    last: Option<Mark>,
}

impl FrontEnd {
    /// Log-mel values of a frame, and the samples that it stands for.
    pub(crate) fn frame(&self) -> (usize, usize) {
        (self.mel.config().mel_bins, self.mel.config().hop)
    }

    /// Takes samples, and appends the frames that they complete to `frames`, `[frames, mel_bins]`. Returns the pauses that have lasted long
    /// enough with them.
    pub(crate) fn push(&mut self, samples: &[f32], frames: &mut Vec<f32>) -> Vec<Mark> {
        let mut found = Vec::new();
        if !samples.is_empty() {
            self.mel.push(samples, frames);
            self.samples += samples.len() as u64;
            self.last = None;
            if let Some(pauses) = &mut self.pauses {
                pauses.push(samples, &mut found);
            }
        }
        let mark = |samples| Mark {
            samples,
            silence_before: self.silence,
            silence: 0,
            positions: self.schedule.positions_of(samples + self.silence),
        };
        found.into_iter().map(mark).collect()
    }

    /// Appends the silence in which all words that have begun are written out. A second time in a row there is nothing to append.
    pub(crate) fn flush(&mut self, frames: &mut Vec<f32>) -> Mark {
        if let Some(mark) = self.last {
            return Mark { silence_before: self.silence, silence: 0, ..mark };
        }
        let heard = self.samples + self.silence;
        let silence = self.schedule.right_samples(heard);
        self.mel.push(&vec![0.0; silence], frames);
        let mark = Mark {
            samples: self.samples,
            silence_before: self.silence,
            silence: silence as u64,
            positions: self.schedule.positions(heard),
        };
        self.silence += mark.silence;
        *self.last.insert(mark)
    }

    /// Ends the audio.
    pub(crate) fn finish(&mut self, frames: &mut Vec<f32>) -> Mark {
        let mark = self.flush(frames);
        self.mel.finish(frames);
        mark
    }
}

/// Where the silence of flushes lies, to be taken out of times.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// Where each begins and how long it is, seconds of what the model hears.
    silences: Vec<(f64, f64)>,
}

impl Timeline {
    pub(crate) fn insert(&mut self, mark: &Mark, sample_rate: usize) {
        if mark.silence > 0 {
            let seconds = |samples: u64| samples as f64 / sample_rate as f64;
            self.silences.push((seconds(mark.samples + mark.silence_before), seconds(mark.silence)));
        }
    }

    /// The time in the pushed audio of a time in what the model hears, in milliseconds' precision where there were flushes.
    pub(crate) fn audio_s(&self, heard_s: f64) -> f64 {
        let before = self.silences.iter().map(|&(start, length)| (heard_s - start).clamp(0.0, length)).sum::<f64>();
        if before > 0.0 { ((heard_s - before) * 1e3).round() / 1e3 } else { heard_s }
    }
}

#[cfg(test)]
mod tests {
    use voxtral_model::Delay;

    use super::*;

    fn parts() -> (ModelParts, Schedule) {
        let model = voxtral_digits::model();
        let parts = ModelParts::new(&model).unwrap();
        let schedule = Schedule {
            left_pad: model.tokenizer.left_pad_tokens(),
            delay: Delay::from_ms(480).unwrap(),
            samples_per_token: parts.samples_per_token,
        };
        (parts, schedule)
    }

    #[test]
    fn the_end_right_after_a_flush_adds_nothing() {
        let (parts, schedule) = parts();
        let (mut front, mut frames) = parts.begin(schedule, None);
        front.push(&[0.1; 3000], &mut frames);
        let flush = front.flush(&mut frames);
        assert_eq!(flush.positions, schedule.positions(3000));
        let len = frames.len();
        assert_eq!(front.flush(&mut frames), Mark { silence_before: flush.silence, silence: 0, ..flush });
        assert_eq!(frames.len(), len);
        assert_eq!(front.finish(&mut frames).positions, flush.positions);
        let encoded = schedule.constant_tokens() + frames.len() / parts.token_values;
        assert!(encoded >= flush.positions, "{encoded} tokens for {} positions", flush.positions);
    }

    #[test]
    fn a_flush_is_taken_out_of_the_time() {
        let (parts, schedule) = parts();
        let (mut front, mut frames) = parts.begin(schedule, None);
        let mut timeline = Timeline::default();
        front.push(&[0.1; 16_000], &mut frames);
        let first = front.flush(&mut frames);
        timeline.insert(&first, 16_000);
        // 1 s is filled up to 13 tokens; then 480 ms and 11 tokens.
        assert_eq!(first.silence, 640 + 6 * 1280 + 11 * 1280);
        front.push(&[0.1; 8_000], &mut frames);
        let second = front.flush(&mut frames);
        timeline.insert(&second, 16_000);
        assert_eq!(second.samples, 24_000);
        let heard = 1.0 + first.silence as f64 / 16e3;
        for (heard_s, audio_s) in [(0.5, 0.5), (1.0, 1.0), (1.7, 1.0), (heard + 0.24, 1.24), (heard + 0.6, 1.5)] {
            assert_eq!(timeline.audio_s(heard_s), audio_s, "{heard_s}");
        }
    }
}
