//! Which audio and which ids the model is given before, during and after what was recorded.
//!
//! ```text
//! audio   | left pad: 32 tokens of silence | recorded, filled up to whole tokens | right pad: delay + 11 tokens of silence |
//! ids     | BOS, then a [STREAMING_PAD] for each token of left pad and delay | what the model wrote one position before  |
//! ```

use voxtral_model::Delay;

/// Tokens of silence after the audio and the delay: one for BOS, and ten in which a word that has begun can be written out.
const TAIL_TOKENS: usize = 11;

/// The timeline of one stream, in tokens of [`samples_per_token`](voxtral_model::AudioConfig::samples_per_token).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Tokens of silence before the audio.
    pub left_pad: usize,
    /// How long after a word it is written.
    pub delay: Delay,
    /// Samples of a token.
    pub samples_per_token: usize,
}

impl Schedule {
    /// Ids that are given, not generated: positions `0..prompt_len()`.
    pub fn prompt_len(&self) -> usize {
        1 + self.left_pad + self.delay.tokens()
    }

    /// Tokens at the start that no recorded sample reaches: the same for all streams of a delay. The window of the last frames
    /// of the left pad does reach into the recording.
    pub fn constant_tokens(&self) -> usize {
        self.left_pad - 1
    }

    /// Samples of silence before the recording.
    pub fn left_samples(&self) -> usize {
        self.left_pad * self.samples_per_token
    }

    /// Samples of silence after a recording of `samples`.
    pub fn right_samples(&self, samples: u64) -> usize {
        let token = self.samples_per_token as u64;
        let fill = (samples.next_multiple_of(token) - samples) as usize;
        fill + self.samples_per_token * (self.delay.tokens() + TAIL_TOKENS)
    }

    /// Tokens of audio in all, for a recording of `samples`.
    pub fn tokens(&self, samples: u64) -> usize {
        self.positions_of(samples) + TAIL_TOKENS
    }

    /// Positions whose predictions refer to the first `samples` of a recording, and those before them.
    pub fn positions_of(&self, samples: u64) -> usize {
        samples.div_ceil(self.samples_per_token as u64) as usize + self.left_pad + self.delay.tokens()
    }

    /// Positions that are decoded: all but the last, whose prediction would lie beyond the audio.
    pub fn positions(&self, samples: u64) -> usize {
        self.tokens(samples) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Table {
        cases: Vec<Case>,
        online: Vec<Online>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        n_samples: u64,
        delay_ms: u32,
        left_pad_samples: usize,
        right_pad_samples: usize,
        padded_samples: u64,
        num_delay_tokens: usize,
        num_audio_tokens: usize,
    }

    #[derive(serde::Deserialize)]
    struct Online {
        delay_ms: u32,
        prompt_ids: Vec<u32>,
        left_audio_samples: usize,
        right_audio_samples: usize,
    }

    fn schedule(delay_ms: u32) -> Schedule {
        Schedule { left_pad: 32, delay: Delay::from_ms(delay_ms).unwrap(), samples_per_token: 1280 }
    }

    /// A prompt is decoded whole: a longer one would wait for ever beside live sessions.
    #[test]
    fn the_longest_prompt_is_no_longer_than_a_call_that_live_audio_waits_for() {
        let longest = schedule(2400);
        assert_eq!(longest.prompt_len() - longest.constant_tokens(), crate::scheduler::BACKGROUND_TOKENS);
    }

    /// The padding table that mistral-common computes, row by row.
    #[test]
    fn pads_as_mistral_common_does() {
        let table: Table = serde_json::from_str(include_str!("../../../goldens/mistral_common.json")).unwrap();
        assert!(table.cases.len() == 72 && table.online.len() == 6);
        for case in &table.cases {
            let schedule = schedule(case.delay_ms);
            let label = format!("{} samples at {} ms", case.n_samples, case.delay_ms);
            assert_eq!(schedule.delay.tokens(), case.num_delay_tokens, "{label}");
            assert_eq!(schedule.left_samples(), case.left_pad_samples, "{label}");
            assert_eq!(schedule.right_samples(case.n_samples), case.right_pad_samples, "{label}");
            assert_eq!(schedule.tokens(case.n_samples), case.num_audio_tokens, "{label}");
            assert_eq!(schedule.tokens(case.n_samples) as u64 * 1280, case.padded_samples, "{label}");
        }
        for row in &table.online {
            let schedule = schedule(row.delay_ms);
            assert_eq!(schedule.prompt_len(), row.prompt_ids.len());
            assert_eq!(schedule.left_samples(), row.left_audio_samples);
            // Online the last token is not filled up first; whole tokens need no filling either way.
            assert_eq!(schedule.right_samples(0), row.right_audio_samples);
            assert!(row.prompt_ids[0] == 1 && row.prompt_ids[1..].iter().all(|&id| id == 32));
        }
    }
}
