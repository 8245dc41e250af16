//! What is kept of transcriptions, where the operator wants that: what was heard, and what was said in it.
//!
//! ```text
//! 16 kHz samples ─ Ear ─┐ bounded queue ─ a thread ─ a hidden file … renamed when all is there
//! events ─ Kept ─ Json ─┘
//! ```
//! A transcription never waits for the disk. Where that is full, too slow or gone, the log says so, and nothing of that transcription is kept.

use std::fs::DirBuilder;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hound::{WavSpec, WavWriter};
use tempfile::NamedTempFile;
use tokio_util::task::TaskTracker;
use tracing::Span;
use voxtral::{Damage, End, Json, Options, SAMPLE_RATE, Sink, Summary, Word};

use crate::app::App;
use crate::lines::Lines;

/// Pieces of audio that may wait for the disk: at a second or less each, some minutes.
const QUEUE: usize = 512;

/// A WAV file counts its bytes in 32 bits; this leaves room for its header.
const MOST_SAMPLES: u64 = (u32::MAX as u64 - 1024) / 2;

/// A folder in which the audio and the transcript of every session are kept. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Keep {
    folder: PathBuf,
    /// What is being written.
    open: TaskTracker,
}

/// Why nothing can be kept there.
#[derive(Debug, thiserror::Error)]
#[error("nothing can be kept in {}: {source}", folder.display())]
pub struct KeepError {
    folder: PathBuf,
    source: io::Error,
}

impl Keep {
    /// Makes the folder, if it is not there, for nobody but its owner, and tries whether it takes files.
    ///
    /// # Errors
    /// When it does not.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, KeepError> {
        let folder = folder.into();
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&folder).and_then(|()| hidden(&folder)) {
            Ok(_) => Ok(Self { folder, open: TaskTracker::new() }),
            Err(source) => Err(KeepError { folder, source }),
        }
    }

    /// Begins to keep a session, which is called by the id of its request.
    pub(crate) fn begin(&self, app: &Arc<App>, id: &str, options: &Options) -> Option<Kept> {
        let name = format!("{}-{}", stamp(SystemTime::now()), plain(id));
        let (to, messages) = sync_channel(QUEUE);
        let sender = Sender { to, lost: Arc::default(), samples: Arc::default() };
        let about = app.voxtral.about(format!("{name}.wav"), options, Default::default());
        let transcript = sender.clone();
        let give = move |line| {
            transcript.send(Message::Transcript(line));
            Ok(())
        };
        let json = Json::new(Lines::new(give), about);
        let (folder, lost, open, request) =
            (self.folder.clone(), Arc::clone(&sender.lost), self.open.token(), Span::current());
        let work = move || {
            let _of_request = request.entered();
            if let Err(error) = write(&folder, &name, messages, &lost) {
                tracing::warn!("{name} is not kept: {error}");
            }
            drop(open);
        };
        if let Err(error) = std::thread::Builder::new().name("voxtral-keep".into()).spawn(work) {
            tracing::warn!("a session is not kept: {error}");
            return None;
        }
        let (text, begun, ended) = (String::new(), Instant::now(), false);
        Some(Kept { app: Arc::clone(app), ear: Ear(sender), json, text, begun, ended })
    }

    /// Waits until all that was kept is on the disk.
    pub(crate) async fn all_written(&self) {
        self.open.close();
        self.open.wait().await;
    }
}

/// A session that is being kept, and is told what happens in it. Dropped before its end it is kept as far as it came, if anything was said.
pub(crate) struct Kept {
    app: Arc<App>,
    ear: Ear,
    json: Json<Lines>,
    text: String,
    begun: Instant,
    ended: bool,
}

impl Kept {
    /// What is to hear its audio.
    pub(crate) fn ear(&self) -> &Ear {
        &self.ear
    }

    /// The session has come to its end.
    pub(crate) fn end(&mut self, summary: &Summary) {
        self.end_with(summary, None);
    }

    fn end_with(&mut self, summary: &Summary, cut_short: Option<&str>) {
        let peak_device_bytes = self.app.voxtral.engine().peak_device_bytes();
        let (total, peak_rss_bytes) = (self.begun.elapsed(), voxtral::peak_rss_bytes());
        let outcome = Sink::end(self, &End { summary, cut_short, total, peak_rss_bytes, peak_device_bytes });
        if let Err(error) = outcome {
            tracing::warn!("a session is not kept: {error}");
        }
    }

    /// Keeps nothing of it.
    pub(crate) fn forget(mut self) {
        self.ended = true;
    }
}

impl Sink for Kept {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.text += text;
        Ok(())
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.json.word(word)
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.json.damage(damage)
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        self.ended = true;
        self.json.end(end)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.ended {
            let audio_s = self.ear.0.samples.load(Relaxed) as f64 / f64::from(SAMPLE_RATE);
            let text = self.text.trim().to_owned();
            self.end_with(&Summary { text, audio_s, stats: Default::default() }, Some("the session broke off here"));
        }
    }
}

/// Takes the audio of a session.
#[derive(Clone)]
pub(crate) struct Ear(Sender);

impl Ear {
    /// Takes 16 kHz samples. Never waits.
    pub(crate) fn hear(&self, samples: &[f32]) {
        self.0.samples.fetch_add(samples.len() as u64, Relaxed);
        self.0.send(Message::Audio(samples.to_vec()));
    }
}

enum Message {
    Audio(Vec<f32>),
    /// The last one.
    Transcript(Vec<u8>),
}

#[derive(Clone)]
struct Sender {
    to: SyncSender<Message>,
    /// Whether something found no room.
    lost: Arc<AtomicBool>,
    /// Samples of audio so far.
    samples: Arc<AtomicU64>,
}

impl Sender {
    fn send(&self, message: Message) {
        // Where the thread has ended, it has said why.
        if let Err(TrySendError::Full(_)) = self.to.try_send(message)
            && !self.lost.swap(true, Relaxed)
        {
            tracing::warn!("a session is not kept: the disk is too slow");
        }
    }
}

/// Writes what comes, and puts it in its place when that was all. Where the transcript does not come, nothing stays.
fn write(folder: &Path, name: &str, messages: Receiver<Message>, lost: &AtomicBool) -> io::Result<()> {
    let mut audio = hidden(folder)?;
    let spec =
        WavSpec { channels: 1, sample_rate: SAMPLE_RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut wav = WavWriter::new(BufWriter::new(&mut audio), spec).map_err(io_error)?;
    let (mut samples, mut transcript) = (0, None);
    for message in messages {
        match message {
            Message::Audio(piece) => {
                samples += piece.len() as u64;
                if samples > MOST_SAMPLES {
                    return Err(io::Error::other("it is longer than a WAV file can be, 37 hours"));
                }
                for sample in piece {
                    wav.write_sample((sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16)
                        .map_err(io_error)?;
                }
            }
            Message::Transcript(line) => {
                transcript = Some(line);
                break;
            }
        }
    }
    wav.finalize().map_err(io_error)?;
    let Some(line) = transcript.filter(|_| !lost.load(Relaxed)) else { return Ok(()) };
    place(audio, &folder.join(format!("{name}.wav")))?;
    let mut json = hidden(folder)?;
    json.write_all(&line)?;
    // Where there is a transcript, there is the audio.
    place(json, &folder.join(format!("{name}.json")))
}

/// A file that only its owner may read, and that is gone unless it is put in its place.
fn hidden(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".voxtral-").tempfile_in(folder)
}

fn place(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

fn io_error(error: hound::Error) -> io::Error {
    if let hound::Error::IoError(error) = error { error } else { io::Error::other(error) }
}

/// A time, UTC, as a part of a name by which files are in order: 20261127T002657.123Z.
fn stamp(time: SystemTime) -> String {
    // Fri, 27 Nov 2026 00:26:57 GMT
    let date = httpdate::fmt_http_date(time);
    let (day, month, year, clock) = (&date[5..7], &date[8..11], &date[12..16], date[17..25].replace(':', ""));
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = 1 + months.iter().position(|name| *name == month).unwrap_or_default();
    let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    format!("{year}{month:02}{day}T{clock}.{ms:03}Z")
}

/// An id as a part of a name. Clients choose it, so it may hold anything.
fn plain(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    id.chars().take(64).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_says_when_and_leads_nowhere_else() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_739_217_123);
        assert_eq!(stamp(time), "20261127T002657.123Z");
        assert_eq!(plain("../../etc/mine 7"), "______etc_mine_7");
        assert_eq!(plain(&"é".repeat(100)), "_".repeat(64));
    }
}
