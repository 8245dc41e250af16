//! Which tokens there are when so much of a live stream has been heard.

use voxtral_engine::Schedule;
use voxtral_model::AudioConfig;

/// Which piece of audio a token waits for. A piece is as long as a token.
pub(super) struct Timeline {
    schedule: Schedule,
    /// Samples from where the audio of a token begins to the end of the window of its last frame.
    reach: usize,
}

impl Timeline {
    pub(super) fn new(schedule: Schedule, audio: &AudioConfig) -> Self {
        let reach = schedule.samples_per_token - audio.hop + audio.window - audio.window / 2;
        Self { schedule, reach }
    }

    /// The piece with which token `token` can be computed. Both are counted from 0.
    pub(super) fn piece(&self, token: usize) -> usize {
        // The first token is what the last position of the prompt predicts.
        let position = self.schedule.prompt_len() - 1 + token;
        let samples = position * self.schedule.samples_per_token + self.reach - self.schedule.left_samples();
        samples.div_ceil(self.schedule.samples_per_token) - 1
    }

    /// Tokens that can be computed with the first `pieces` pieces.
    pub(super) fn tokens(&self, pieces: usize) -> usize {
        pieces.saturating_sub(self.piece(0))
    }

    /// All tokens of a stream that ends after `pieces` pieces.
    pub(super) fn all_tokens(&self, pieces: usize) -> usize {
        let samples = (pieces * self.schedule.samples_per_token) as u64;
        self.schedule.positions(samples) + 1 - self.schedule.prompt_len()
    }
}

#[cfg(test)]
mod tests {
    use voxtral::Delay;
    use voxtral_audio::{MelConfig, MelStream};
    use voxtral_model::ModelConfig;

    use super::*;

    fn timeline(delay_ms: u32) -> Timeline {
        let schedule = Schedule { left_pad: 32, delay: Delay::from_ms(delay_ms).unwrap(), samples_per_token: 1280 };
        Timeline::new(schedule, &ModelConfig::released().audio)
    }

    /// The frames that a token needs are there with its piece and not before.
    #[test]
    fn a_token_waits_for_its_piece_and_no_longer() {
        let audio = ModelConfig::released().audio;
        let shape = MelConfig {
            sample_rate: audio.sample_rate,
            mel_bins: 1,
            hop: audio.hop,
            window: audio.window,
            log_mel_max: audio.log_mel_max,
        };
        for delay_ms in [80, 480, 2400] {
            let timeline = timeline(delay_ms);
            let mut mel = MelStream::new(shape.clone()).unwrap();
            let mut frames = Vec::new();
            mel.push(&vec![0.0; timeline.schedule.left_samples()], &mut frames);
            for pieces in 1..60 {
                mel.push(&[0.0; 1280], &mut frames);
                // Position p needs the 8 frames of each of p + 1 tokens.
                let positions = frames.len() / 8;
                let tokens = (positions + 1).saturating_sub(timeline.schedule.prompt_len());
                assert_eq!(timeline.tokens(pieces), tokens, "{pieces} pieces at {delay_ms} ms");
                if tokens > 0 {
                    assert_eq!(timeline.piece(tokens - 1), pieces - 1, "token {} at {delay_ms} ms", tokens - 1);
                }
            }
        }
    }

    #[test]
    fn a_stream_has_ten_tokens_more_than_pieces() {
        assert_eq!([1, 100].map(|pieces| timeline(480).all_tokens(pieces)), [11, 110]);
    }
}
