//! A file that is being transcribed, on a thread of its own.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tracing::Span;
use voxtral::{
    AudioError, AudioOptions, AudioSource, Damage, Delay, End, Error, Notice, Options, Sink, Source, Summary,
    TokenRecord, Word,
};

use super::spool;
use crate::app::App;
use crate::error::ApiError;
use crate::keep::{Ear, Kept};
use crate::slots::Slot;

/// A transcription. It goes on while this is there, and ends at the next token when it is dropped; then its slot is free.
pub(crate) struct Transcription {
    heard: watch::Receiver<Heard>,
    /// What it was begun with.
    pub(crate) delay: Option<Delay>,
    /// Until it has come to its end.
    kept: Option<Kept>,
}

/// What has been heard so far. It only grows, so whoever follows it may come late and may be slow: nothing waits for them. Four hours
/// are a few MB.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) words: Vec<Word>,
    /// Tokens of text and others, one for each 80 ms.
    pub(crate) tokens: Vec<TokenRecord>,
    /// Those up to the end of `text`.
    pub(crate) tokens_of_text: usize,
    pub(crate) damage: Vec<Damage>,
    pub(crate) end: Option<Result<Summary, ApiError>>,
}

impl Transcription {
    /// Begins to transcribe what `file` gives, in this slot, for the request that is called `id`.
    pub(crate) fn begin(
        app: &Arc<App>,
        id: &str,
        file: spool::Reader,
        delay: Option<Delay>,
        slot: &Arc<Slot>,
    ) -> Result<Self, ApiError> {
        let (told, heard) = watch::channel(Heard::default());
        let kept = app.keep(id, &Options { delay, ..Options::default() });
        let ear = kept.as_ref().map(|kept| kept.ear().clone());
        let (app, slot) = (Arc::clone(app), Arc::clone(slot));
        let request = Span::current();
        let work = move || {
            let _of_request = request.entered();
            let mut listener = Listener { app: &app, told, begun: Instant::now(), refused: None, cut_short: None };
            let outcome = listener.hear(file, ear, delay);
            // Who sees the end may want the slot next.
            drop(slot);
            listener.told.send_modify(|heard| heard.end = Some(outcome));
        };
        let started = std::thread::Builder::new().name("voxtral-file".into()).spawn(work);
        started.map_err(|error| ApiError::internal(&error))?;
        Ok(Self { heard, delay, kept })
    }

    /// Whether it has failed already.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if let Some(Err(error)) = &self.heard.borrow().end { Err(error.clone()) } else { Ok(()) }
    }

    /// Looks at what has been heard, and at the summary if that is all, until there is something to see.
    ///
    /// # Errors
    /// Where the transcription failed.
    pub(crate) async fn when<T>(
        &mut self,
        mut look: impl FnMut(&Heard, Option<&Summary>) -> Option<T>,
    ) -> Result<T, ApiError> {
        loop {
            let seen = {
                let heard = self.heard.borrow_and_update();
                match &heard.end {
                    None => look(&heard, None).map(Ok),
                    Some(Ok(summary)) => look(&heard, Some(summary)).map(Ok),
                    Some(Err(error)) => Some(Err(error.clone())),
                }
            };
            if let Some(seen) = seen {
                self.keep();
                return seen;
            }
            // Where its thread panicked, nobody tells the end.
            self.heard.changed().await.map_err(|error| ApiError::internal(&error))?;
        }
    }

    /// Keeps it, if it has come to its end. One that nobody is answered with is not kept.
    fn keep(&mut self) {
        let heard = self.heard.borrow();
        let Some(Ok(summary)) = &heard.end else { return };
        let Some(mut kept) = self.kept.take() else { return };
        let told = heard.words.iter().try_for_each(|word| kept.word(word));
        // Nothing is written before the end.
        let _ = told.and_then(|()| heard.damage.iter().try_for_each(|damage| kept.damage(damage)));
        kept.end(summary);
    }
}

/// Tells those who wait what is heard.
struct Listener<'a> {
    app: &'a App,
    told: watch::Sender<Heard>,
    begun: Instant,
    /// Why it ends before its audio does.
    refused: Option<ApiError>,
    /// What was heard of a file that could not be read to its end.
    cut_short: Option<Summary>,
}

impl Listener<'_> {
    fn hear(&mut self, file: spool::Reader, ear: Option<Ear>, delay: Option<Delay>) -> Result<Summary, ApiError> {
        let audio = AudioSource::from_reader_with(file, &AudioOptions::default()).map_err(unreadable)?;
        if audio.duration().is_some_and(|duration| duration > self.app.config.max_audio) {
            return Err(self.too_long());
        }
        let options = Options { delay, ..Options::default() };
        let mut source = Source::from(audio);
        if let Some(ear) = ear {
            source = source.heard_by(move |samples| ear.hear(samples));
        }
        let summary = match self.app.voxtral.transcribe(source, &options, self) {
            Ok(summary) => summary,
            Err(Error::Audio(error)) => self.cut_short.take().ok_or_else(|| unreadable(error))?,
            Err(error) => return Err(self.refused.take().unwrap_or_else(|| error.into())),
        };
        self.app.metrics.audio(summary.audio_s);
        Ok(summary)
    }

    fn too_long(&self) -> ApiError {
        let seconds = self.app.config.max_audio.as_secs();
        ApiError::too_large(format!("the recording is longer than the {seconds} seconds that are taken"))
    }

    /// Ends the transcription at once.
    fn refuse(&mut self, why: ApiError) -> io::Result<()> {
        self.refused = Some(why);
        Err(io::ErrorKind::Interrupted.into())
    }

    fn tell(&self, change: impl FnOnce(&mut Heard)) -> io::Result<()> {
        self.told.send_modify(change);
        Ok(())
    }
}

/// Why there is nothing to hear, or no more.
fn unreadable(error: AudioError) -> ApiError {
    match error {
        // Nobody is there to hear why.
        AudioError::Io(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
            ApiError::bad_request(error.to_string())
        }
        AudioError::Io(error) => ApiError::internal(&error),
        error => ApiError::bad_field("file", error.to_string()),
    }
}

impl Sink for Listener<'_> {
    fn token(&mut self, token: &TokenRecord) -> io::Result<()> {
        if self.told.is_closed() {
            return self.refuse(ApiError::bad_request("the client has left"));
        }
        if self.app.slots.is_closing() {
            return self.refuse(ApiError::draining());
        }
        // Nobody waits for tokens alone.
        self.told.send_if_modified(|heard| {
            heard.tokens.push(*token);
            false
        });
        Ok(())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.tell(|heard| {
            heard.text += text;
            heard.tokens_of_text = heard.tokens.len();
        })
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        if self.told.borrow().words.is_empty() {
            self.app.metrics.first_word(self.begun.elapsed());
        }
        self.tell(|heard| heard.words.push(word.clone()))
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.tell(|heard| heard.damage.push(damage.clone()))
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        tracing::info!("a file: {notice}");
        Ok(())
    }

    fn progress(&mut self, done_s: f64, _: Option<f64>) -> io::Result<()> {
        // The last tokens are of the silence that the model is given behind the audio.
        let too_long = done_s > self.app.config.max_audio.as_secs_f64() + 5.0;
        if too_long { self.refuse(self.too_long()) } else { Ok(()) }
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        let Some(why) = end.cut_short.map(str::to_owned) else { return Ok(()) };
        let at_s = end.summary.audio_s;
        // An answer without words would say that nothing was said.
        if !self.told.borrow().words.is_empty() {
            self.cut_short = Some(end.summary.clone());
            self.told.send_modify(|heard| heard.damage.push(Damage { at_s, lost_s: 0.0, what: why }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use voxtral::{BackendChoice, Config, Voxtral};

    use super::*;
    use crate::ServerConfig;
    use crate::files::spool::Spool;

    #[tokio::test]
    async fn a_file_is_heard_while_it_comes_in() {
        let config = Config { backend: BackendChoice::Cpu, ..Config::default() };
        let voxtral = Voxtral::open(&config, &mut |_| {}).unwrap();
        let app = Arc::new(App::new(voxtral, ServerConfig::default()));
        let file = std::fs::read("../../samples/digits.wav").unwrap();

        let (spool, slot) = (Spool::new().unwrap(), Arc::new(app.slots.take().unwrap()));
        let mut transcription = Transcription::begin(&app, "", spool.reader(), None, &slot).unwrap();
        drop(slot);
        spool.write(Bytes::copy_from_slice(&file[..file.len() * 4 / 5])).await.unwrap();
        let text =
            transcription.when(|heard, end| (!heard.text.is_empty()).then(|| (heard.text.clone(), end.is_some())));
        let (text, ended) = text.await.unwrap();
        assert!(text.starts_with("four") && !ended, "{text}");

        drop((transcription, spool));
        app.slots.all_free().await;
    }
}
