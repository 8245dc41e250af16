//! Where a transcription goes: a [`Sink`] is told what happens as it happens, and each output is one.
//!
//! An output writes what it can as soon as it can. Whoever transcribes chooses it once, and nothing else asks which it is.

mod collect;
mod cues;
mod json;
mod jsonl;
mod subtitles;
mod text;

use std::io;
use std::time::Duration;

pub use collect::Collect;
pub use cues::{Cue, Cues};
pub use json::{About, Json};
pub use jsonl::JsonLines;
pub use subtitles::{CueFormat, Subtitles};
pub use text::Text;

use voxtral_audio::{Damage, Notice};

use crate::{Alternative, Segment, Summary, TokenRecord, Word};

/// What takes a transcription, in the order in which it comes. All of it is optional.
///
/// An error ends the transcription, and is its error.
pub trait Sink {
    /// The model wrote a token, one for each 80 ms of audio.
    ///
    /// # Errors
    /// Those of writing.
    fn token(&mut self, token: &TokenRecord) -> io::Result<()> {
        let _ = token;
        Ok(())
    }

    /// The model nearly wrote one of these instead of the text that is told next.
    ///
    /// # Errors
    /// Those of writing.
    fn alternatives(&mut self, alternatives: &[Alternative]) -> io::Result<()> {
        let _ = alternatives;
        Ok(())
    }

    /// The text goes on with this. What was told stays as it is.
    ///
    /// # Errors
    /// Those of writing.
    fn text(&mut self, text: &str) -> io::Result<()> {
        let _ = text;
        Ok(())
    }

    /// A word is complete. Its letters have been told as text before.
    ///
    /// # Errors
    /// Those of writing.
    fn word(&mut self, word: &Word) -> io::Result<()> {
        let _ = word;
        Ok(())
    }

    /// A pause in the speech has lasted as long as was asked for, where the audio was `at_s` seconds long. All that was said before it has
    /// been told, and some of that since the last endpoint.
    ///
    /// # Errors
    /// Those of writing.
    fn endpoint(&mut self, at_s: f64) -> io::Result<()> {
        let _ = at_s;
        Ok(())
    }

    /// Some of the audio is missing or wrong.
    ///
    /// # Errors
    /// Those of writing.
    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        let _ = damage;
        Ok(())
    }

    /// Something about the audio is worth a line, and is no damage.
    ///
    /// # Errors
    /// Those of writing.
    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        let _ = notice;
        Ok(())
    }

    /// So many seconds of live audio have come in, the newest at this level: the mean power in dB, where that of full scale is 0.
    ///
    /// # Errors
    /// Those of writing.
    fn audio(&mut self, audio_s: f64, level_db: f32) -> io::Result<()> {
        let _ = (audio_s, level_db);
        Ok(())
    }

    /// So many seconds of the audio have been transcribed, of so many in all where its header says that.
    ///
    /// # Errors
    /// Those of writing.
    fn progress(&mut self, done_s: f64, total_s: Option<f64>) -> io::Result<()> {
        let _ = (done_s, total_s);
        Ok(())
    }

    /// All audio is transcribed, or all that could be read of it. Nothing follows. Where the engine failed, this is not called.
    ///
    /// # Errors
    /// Those of writing.
    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        let _ = end;
        Ok(())
    }
}

/// The end of a transcription, and what it took.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The whole session.
    pub summary: &'a Summary,
    /// Why the audio could not be read to its end, if so: the summary is of what came before.
    pub cut_short: Option<&'a str>,
    /// From opening the input to here.
    pub total: Duration,
    /// The most memory that the process has held, in bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// The most device memory that the engine has held, in bytes; 0 on a CPU.
    pub peak_device_bytes: u64,
}

/// What has been said since the last endpoint.
#[derive(Debug, Default)]
struct Open {
    start_s: f64,
    text: String,
}

impl Open {
    /// Ends the segment, and begins the next.
    fn end(&mut self, end_s: f64) -> Segment {
        let Self { start_s, text } = std::mem::replace(self, Self { start_s: end_s, text: String::new() });
        Segment { start_s, end_s, text: text.trim().to_owned() }
    }
}

/// Nothing is kept.
impl Sink for () {}

/// All are told, in their order.
impl Sink for Vec<&mut dyn Sink> {
    fn token(&mut self, token: &TokenRecord) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.token(token))
    }

    fn alternatives(&mut self, alternatives: &[Alternative]) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.alternatives(alternatives))
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.text(text))
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.word(word))
    }

    fn endpoint(&mut self, at_s: f64) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.endpoint(at_s))
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.damage(damage))
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.notice(notice))
    }

    fn audio(&mut self, audio_s: f64, level_db: f32) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.audio(audio_s, level_db))
    }

    fn progress(&mut self, done_s: f64, total_s: Option<f64>) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.progress(done_s, total_s))
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        self.iter_mut().try_for_each(|sink| sink.end(end))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::SessionStats;

    /// A session that heard `text`.
    pub(crate) fn summary(text: &str) -> Summary {
        let stats = SessionStats { positions: 151, tokens: 113, passes: 113, ..SessionStats::default() };
        Summary { text: text.to_owned(), audio_s: 8.195, stats }
    }

    /// Its end.
    pub(crate) fn end(summary: &Summary, cut_short: bool) -> End<'_> {
        let cut_short = cut_short.then_some("no such disk");
        End { summary, cut_short, total: Duration::from_millis(820), peak_rss_bytes: 25_000_000, peak_device_bytes: 0 }
    }
}
