//! What the server does, in figures for Prometheus.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::app::App;

/// OpenMetrics.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of the histograms, seconds: from what nobody notices to what nobody waits for.
const SECONDS: [f64; 12] = [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0];

/// A label and its value.
type Label = [(&'static str, &'static str); 1];

/// What is counted as it happens. All else is asked when somebody wants to know.
pub(crate) struct Metrics {
    audio_s: Counter<f64, AtomicU64>,
    word_lateness: Histogram,
    first_word: Histogram,
    pads: Histogram,
    errors: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            audio_s: Counter::default(),
            word_lateness: Histogram::new(SECONDS),
            first_word: Histogram::new(SECONDS),
            pads: Histogram::new(SECONDS),
            errors: Family::default(),
        }
    }
}

impl Metrics {
    /// So much audio was transcribed, seconds.
    pub(crate) fn audio(&self, seconds: f64) {
        self.audio_s.inc_by(seconds);
    }

    /// A word of live audio came out so long after it had been heard to its end.
    pub(crate) fn word_lateness(&self, late: Duration) {
        self.word_lateness.observe(late.as_secs_f64());
    }

    /// The first word of a transcription came out so long after that had begun.
    pub(crate) fn first_word(&self, after: Duration) {
        self.first_word.observe(after.as_secs_f64());
    }

    /// So long the model wrote nothing but padding while somebody spoke.
    pub(crate) fn pads(&self, run: Duration) {
        self.pads.observe(run.as_secs_f64());
    }

    /// A client was told that something is wrong; `kind` is the error's code, one of a few.
    pub(crate) fn error(&self, kind: &'static str) {
        self.errors.get_or_create(&[("kind", kind)]).inc();
    }
}

/// All figures as of now.
pub(crate) fn text(app: &App) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("voxtral");
    streams(app, &mut registry);
    engine(app, &mut registry);
    let metrics = &app.metrics;
    registry.register("audio_seconds", "Audio that was transcribed", metrics.audio_s.clone());
    let help = "From the end of a word in live audio until it is sent";
    registry.register("word_lateness_seconds", help, metrics.word_lateness.clone());
    let help = "From the beginning of a transcription until its first word is sent";
    registry.register("first_word_seconds", help, metrics.first_word.clone());
    let help = "Runs of padding while somebody spoke, in live audio; a longer one counts every 30 s";
    registry.register("pad_run_seconds", help, metrics.pads.clone());
    registry.register("errors", "Errors that clients were told", metrics.errors.clone());
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn streams(app: &App, registry: &mut Registry) {
    let state = app.slots.state();
    let gauge = |value: usize| ConstGauge::new(value as i64);
    registry.register("streams_active", "Transcriptions that run", gauge(state.taken));
    registry.register("streams_capacity", "Most transcriptions at a time", gauge(app.slots.capacity()));
    registry.register("streams", "Transcriptions that were begun", ConstCounter::new(state.given));
    let refused = Family::<Label, Counter>::default();
    for (reason, count) in [("full", state.refused_full), ("draining", state.refused_draining)] {
        refused.get_or_create(&[("reason", reason)]).inc_by(count);
    }
    registry.register("streams_refused", "Transcriptions that were refused", refused);
}

fn engine(app: &App, registry: &mut Registry) {
    let engine = app.voxtral.engine();
    let counters = engine.counters();
    let gauge = ConstGauge::<f64>::new;
    let seconds = |time: Duration| ConstCounter::new(time.as_secs_f64());
    registry.register("sessions", "Sessions of the engine", ConstGauge::new(counters.sessions as i64));
    let queued_s = counters.queued_frames as f64 / 100.0;
    registry.register("queued_audio_seconds", "Audio that waits for the engine", gauge(queued_s));
    registry.register("rounds", "Rounds of the engine", ConstCounter::new(counters.rounds));
    let help = "How long the last round took: audio that comes now waits about as long";
    registry.register("last_round_seconds", help, gauge(counters.last_round.as_secs_f64()));
    registry.register("encoded_tokens", "Tokens of audio (80 ms) encoded", ConstCounter::new(counters.encoded_tokens));
    registry.register("encode_seconds", "Time in the encoder", seconds(counters.encode));
    registry.register("passes", "Passes of the decoder", ConstCounter::new(counters.passes));
    let help = "Rows of all passes, wrong guesses too: divided by passes, the rows a pass";
    registry.register("decoded_rows", help, ConstCounter::new(counters.decoded_rows));
    let help = "Tokens of text or padding: divided by passes, the tokens a pass";
    registry.register("decoded_tokens", help, ConstCounter::new(counters.decoded_tokens));
    registry.register("decode_seconds", "Time in the decoder", seconds(counters.decode));
    let device = engine.info().device_bytes;
    registry.register("device_memory_bytes", "Memory taken on the device, if it is not the host", gauge(device as f64));
    let peak = voxtral::peak_rss_bytes();
    registry.register("peak_memory_bytes", "Most memory that the process has had", gauge(peak as f64));
}
