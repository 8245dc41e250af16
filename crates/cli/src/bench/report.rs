//! What was measured, and how it is written.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use voxtral_transcript::Audio;
use voxtral_transcript::format::cell_text;

use super::environment::{Environment, Gpu};
use crate::input::read_text;

/// All that a benchmark found. Its JSON is described in `schemas/bench.schema.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Report {
    pub environment: Environment,
    pub settings: Settings,
    pub backends: Vec<Measured>,
    /// What it was compared with.
    pub against: Option<Against>,
}

/// What was run, and how.
#[derive(Serialize, Deserialize)]
pub(super) struct Settings {
    pub model: String,
    pub parameters: u64,
    pub delay_ms: u32,
    pub decode: String,
    pub lookahead: u16,
    /// Whether audio came as fast as it is spoken.
    pub live: bool,
    /// Runs before those that count, with the first recording.
    pub warm_up_runs: u16,
    pub runs: u16,
}

/// One backend.
#[derive(Serialize, Deserialize)]
pub(super) struct Measured {
    pub backend: String,
    pub device: String,
    pub load_ms: f64,
    /// Encoding and decoding the silence that all recordings begin with; once, not part of any total.
    pub warm_start_ms: f64,
    pub peak_rss_mb: f64,
    pub device_mb: f64,
    pub memory: Memory,
    /// One at a time.
    pub recordings: Vec<Figures>,
    /// Repeated, by many live sessions at a time.
    #[serde(default)]
    pub capacity: Vec<Capacity>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Memory {
    /// Weights that a pass of the decoder reads.
    pub pass_mb: f64,
    /// What memory gives after the runs: reading on all threads of the CPU, copying within a GPU (read and written); `None` where it
    /// could not be measured.
    pub rate_gb_s: Option<f64>,
    /// The same before them, on a CPU: on a shared machine it changes.
    #[serde(default)]
    pub rate_before_gb_s: Option<f64>,
}

/// One recording on one backend; times are medians of the runs, percentiles are over the passes or words of all runs.
#[derive(Serialize, Deserialize)]
pub(super) struct Figures {
    pub audio: Audio,
    pub total_ms: f64,
    /// `total_ms` over the length of the audio.
    pub rtf: f64,
    pub first_text_ms: Option<f64>,
    pub encode_ms: f64,
    /// The pass over what is left of the prompt after the warm start.
    pub prefill_ms: f64,
    /// Passes of the decoder after the prompt, in the first run.
    pub passes: u64,
    pub tokens: u64,
    /// Tokens over the time of the passes.
    pub tokens_per_s: f64,
    pub pass_ms: Percentiles,
    /// Weights over the median pass.
    pub reached_gb_s: f64,
    pub live: Option<Live>,
    /// Ratios to the report that was compared with.
    pub against: Option<Ratios>,
}

/// Live sessions, each in real time; percentiles are over the measured tokens of all of them.
#[derive(Serialize, Deserialize)]
pub(super) struct Capacity {
    /// The recording that they hear.
    pub audio: String,
    pub sessions: u64,
    /// That each has heard beforehand.
    pub minutes: f64,
    /// That were measured.
    pub seconds: f64,
    /// Length of audio that each was admitted for.
    pub expected_s: f64,
    pub tokens: u64,
    /// Of all tokens of the sessions, those that did not come.
    pub tokens_lost: u64,
    /// From when the audio that a token needs was due to when its event could be read.
    pub late_ms: Percentiles,
    pub device_start_mb: f64,
    pub device_end_mb: f64,
    /// Part of the time in which the backend was at work.
    pub busy: f64,
    pub files: Option<Files>,
}

/// Recordings that were transcribed beside live sessions.
#[derive(Serialize, Deserialize)]
pub(super) struct Files {
    pub count: u8,
    /// Seconds of audio that all of them got through in a second.
    pub audio_s_per_s: f64,
}

/// How long after it was heard each word was written.
#[derive(Serialize, Deserialize)]
pub(super) struct Live {
    /// `None` where nothing was heard.
    pub latency_ms: Option<Percentiles>,
    /// Of all runs.
    pub words: Vec<WordLatency>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WordLatency {
    pub text: String,
    pub end_s: f64,
    pub latency_ms: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Against {
    pub path: String,
    pub max_slowdown: f64,
}

/// Times over the times of the other report.
#[derive(Serialize, Deserialize)]
pub(super) struct Ratios {
    pub total: f64,
    pub encode: f64,
    pub pass: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// By the nearest rank; zeros of nothing.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let rank = (part * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// To three decimals: finer than any clock here.
pub(super) fn decimals(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Report {
    /// An earlier report.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_text(path)?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what voxtral bench --format json writes", path.display()))
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        self.write_table(&mut out).unwrap_or_default(); // Writing to a string cannot fail.
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let Self { environment: e, settings: s, .. } = self;
        writeln!(out, "voxtral {} ({}), {}", e.version, e.commit, e.system)?;
        writeln!(out, "CPU           {}, {} threads, {}", e.cpu, e.threads, e.isas.join(" "))?;
        if let Some(gpu) = &e.gpu {
            let Gpu { name, capability, driver, kernels, memory_mb } = gpu;
            writeln!(
                out,
                "GPU           {name}, {memory_mb} MB, compute capability {capability}, driver of CUDA {driver}, \
                 kernels {kernels}"
            )?;
        }
        let decode = if s.decode == "parallel" { format!("parallel, {} ahead", s.lookahead) } else { s.decode.clone() };
        let million = s.parameters as f64 / 1e6;
        writeln!(
            out,
            "model         {}, {million:.1} million parameters, delay {} ms, decoding {decode}",
            s.model, s.delay_ms
        )?;
        let live = if s.live { ", audio as fast as it is spoken" } else { "" };
        if self.backends.iter().any(|measured| !measured.recordings.is_empty()) {
            writeln!(out, "runs          {} after {} to warm up{live}; times are medians", s.runs, s.warm_up_runs)?;
        }
        for measured in &self.backends {
            let Measured { load_ms, warm_start_ms, peak_rss_mb, device_mb, memory, .. } = measured;
            writeln!(out, "\n{}: {}", measured.backend, measured.device)?;
            writeln!(out, "load          {load_ms:.1} ms; warm start, once: {warm_start_ms:.1} ms")?;
            writeln!(out, "memory        {peak_rss_mb:.0} MB resident, {device_mb:.0} MB on the device, at most")?;
            let rate = match (memory.rate_before_gb_s, memory.rate_gb_s) {
                (Some(before), Some(after)) => format!("{before:.1} GB/s before the runs, {after:.1} after"),
                (_, Some(rate)) => format!("{rate:.1} GB/s"),
                (_, None) => "not measured".to_owned(),
            };
            writeln!(out, "bandwidth     {rate}; a pass reads {:.1} MB of weights", memory.pass_mb)?;
            for figures in &measured.recordings {
                writeln!(out, "\n  {}, {:.3} s", figures.audio.path, figures.audio.duration_s)?;
                figures.write_table(out, memory)?;
            }
            for capacity in &measured.capacity {
                capacity.write_table(out)?;
            }
        }
        Ok(())
    }

    /// A line for each backend and recording, below a line of names.
    pub(super) fn csv(&self) -> String {
        let one_at_a_time = |measured| move |figures| self.columns(measured, figures);
        let many_at_a_time = |measured| move |capacity| self.capacity_columns(measured, capacity);
        let rows: Vec<_> = self
            .backends
            .iter()
            .flat_map(|measured| {
                let one = measured.recordings.iter().map(one_at_a_time(measured));
                one.chain(measured.capacity.iter().map(many_at_a_time(measured)))
            })
            .collect();
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let names = rows.first().map(|row| row.iter().map(|(name, _)| (*name).to_owned()).collect());
        let values = rows.iter().map(|row| row.iter().map(|(_, value)| quoted(value)).collect());
        names.into_iter().chain(values).map(line).collect()
    }

    /// Where live sessions lost tokens.
    pub(super) fn lost(&self) -> Option<String> {
        let lost: u64 = self.backends.iter().flat_map(|measured| &measured.capacity).map(|c| c.tokens_lost).sum();
        (lost > 0).then(|| format!("{lost} tokens did not come"))
    }

    /// What every row begins with.
    fn run_columns(&self, measured: &Measured) -> Vec<(&'static str, String)> {
        let (e, s) = (&self.environment, &self.settings);
        vec![
            ("version", e.version.clone()),
            ("commit", e.commit.clone()),
            ("backend", measured.backend.clone()),
            ("device", measured.device.clone()),
            ("model", s.model.clone()),
            ("delay_ms", s.delay_ms.to_string()),
            ("decode", s.decode.clone()),
        ]
    }

    fn capacity_columns(&self, measured: &Measured, capacity: &Capacity) -> Vec<(&'static str, String)> {
        let files = capacity.files.as_ref();
        let mut columns = self.run_columns(measured);
        columns.extend([
            ("audio", capacity.audio.clone()),
            ("sessions", capacity.sessions.to_string()),
            ("minutes", capacity.minutes.to_string()),
            ("expected_s", capacity.expected_s.to_string()),
            ("seconds", capacity.seconds.to_string()),
            ("tokens", capacity.tokens.to_string()),
            ("tokens_lost", capacity.tokens_lost.to_string()),
            ("late_p50_ms", capacity.late_ms.p50.to_string()),
            ("late_p90_ms", capacity.late_ms.p90.to_string()),
            ("late_p99_ms", capacity.late_ms.p99.to_string()),
            ("late_max_ms", capacity.late_ms.max.to_string()),
            ("device_start_mb", capacity.device_start_mb.to_string()),
            ("device_end_mb", capacity.device_end_mb.to_string()),
            ("busy", capacity.busy.to_string()),
            ("files", files.map_or(0, |files| files.count).to_string()),
            ("files_audio_s_per_s", files.map_or_else(String::new, |files| files.audio_s_per_s.to_string())),
        ]);
        columns
    }

    fn columns(&self, measured: &Measured, figures: &Figures) -> Vec<(&'static str, String)> {
        let s = &self.settings;
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let word = figures.live.as_ref().and_then(|live| live.latency_ms);
        let ratios = figures.against.as_ref();
        let mut columns = self.run_columns(measured);
        columns.extend([
            ("lookahead", s.lookahead.to_string()),
            ("runs", s.runs.to_string()),
            ("audio", figures.audio.path.clone()),
            ("duration_s", figures.audio.duration_s.to_string()),
            ("load_ms", measured.load_ms.to_string()),
            ("warm_start_ms", measured.warm_start_ms.to_string()),
            ("encode_ms", figures.encode_ms.to_string()),
            ("prefill_ms", figures.prefill_ms.to_string()),
            ("passes", figures.passes.to_string()),
            ("tokens", figures.tokens.to_string()),
            ("pass_p50_ms", figures.pass_ms.p50.to_string()),
            ("pass_p90_ms", figures.pass_ms.p90.to_string()),
            ("pass_p99_ms", figures.pass_ms.p99.to_string()),
            ("tokens_per_s", figures.tokens_per_s.to_string()),
            ("first_text_ms", number(figures.first_text_ms)),
            ("total_ms", figures.total_ms.to_string()),
            ("rtf", figures.rtf.to_string()),
            ("peak_rss_mb", measured.peak_rss_mb.to_string()),
            ("device_mb", measured.device_mb.to_string()),
            ("pass_mb", measured.memory.pass_mb.to_string()),
            ("reached_gb_s", figures.reached_gb_s.to_string()),
            ("rate_gb_s", number(measured.memory.rate_gb_s)),
            ("rate_before_gb_s", number(measured.memory.rate_before_gb_s)),
            ("word_p50_ms", number(word.map(|word| word.p50))),
            ("word_p90_ms", number(word.map(|word| word.p90))),
            ("word_max_ms", number(word.map(|word| word.max))),
            ("total_ratio", number(ratios.map(|ratios| ratios.total))),
            ("encode_ratio", number(ratios.map(|ratios| ratios.encode))),
            ("pass_ratio", number(ratios.map(|ratios| ratios.pass))),
        ]);
        columns
    }
}

impl Figures {
    fn write_table(&self, out: &mut String, memory: &Memory) -> std::fmt::Result {
        let Percentiles { p50, p90, p99, .. } = self.pass_ms;
        writeln!(out, "  total       {:.1} ms, real-time factor {:.4}", self.total_ms, self.rtf)?;
        match self.first_text_ms {
            Some(first_text_ms) => writeln!(out, "  first text  {first_text_ms:.1} ms")?,
            None => writeln!(out, "  first text  none")?,
        }
        writeln!(out, "  encoder     {:.1} ms", self.encode_ms)?;
        writeln!(out, "  prompt      {:.2} ms", self.prefill_ms)?;
        writeln!(
            out,
            "  pass        p50 {p50:.3}, p90 {p90:.3}, p99 {p99:.3} ms; {} passes for {} tokens",
            self.passes, self.tokens
        )?;
        let part = |rate: f64| format!(", {:.0} % of the bandwidth", self.reached_gb_s / rate.max(1e-3) * 100.0);
        let part = memory.rate_gb_s.map_or(String::new(), part);
        writeln!(out, "  weights     {:.1} GB/s in the median pass{part}", self.reached_gb_s)?;
        writeln!(out, "  tokens/s    {:.0}", self.tokens_per_s)?;
        match &self.live {
            None => {}
            Some(Live { latency_ms: None, .. }) => writeln!(out, "  words       none")?,
            Some(Live { latency_ms: Some(Percentiles { p50, p90, max, .. }), words }) => writeln!(
                out,
                "  words       p50 {p50:.0}, p90 {p90:.0}, at most {max:.0} ms after they were heard; {} words",
                words.len()
            )?,
        }
        if let Some(Ratios { total, encode, pass }) = self.against {
            writeln!(out, "  against     total {total:.2}, encoder {encode:.2}, median pass {pass:.2} times as long")?;
        }
        Ok(())
    }
}

impl Capacity {
    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let Self { audio, sessions, minutes, seconds, expected_s, tokens, tokens_lost, busy, .. } = self;
        let Percentiles { p50, p90, p99, max } = self.late_ms;
        writeln!(
            out,
            "\n  {audio}, repeated: {sessions} live sessions, {minutes} minutes heard before, {seconds:.1} s measured"
        )?;
        writeln!(out, "  admitted    for {expected_s:.0} s of audio each")?;
        writeln!(
            out,
            "  late        p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, at most {max:.1} ms after their audio was due"
        )?;
        writeln!(out, "  tokens      {tokens}; {tokens_lost} lost")?;
        let (start, end) = (self.device_start_mb, self.device_end_mb);
        writeln!(
            out,
            "  device      {start:.0} MB at the start, {end:.0} MB at the end; at work {:.0} % of the time",
            busy * 100.0
        )?;
        if let Some(Files { count, audio_s_per_s }) = self.files {
            writeln!(out, "  files       {count} beside them, {audio_s_per_s:.1} seconds of audio a second")?;
        }
        Ok(())
    }
}

/// A cell as spreadsheets read it: as text what they would compute as a formula.
fn quoted(cell: &str) -> String {
    let cell = if cell.parse::<f64>().is_ok() { Cow::Borrowed(cell) } else { cell_text(cell) };
    if cell.contains([',', '"', '\n', '\r', '\t']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_by_the_nearest_rank() {
        let of = |values: &[f64]| Percentiles::of(values.to_vec());
        assert_eq!(of(&[3.0, 1.0, 2.0]), Percentiles { p50: 2.0, p90: 3.0, p99: 3.0, max: 3.0 });
        assert_eq!(of(&[7.0]), Percentiles { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(of(&[]), Percentiles { p50: 0.0, p90: 0.0, p99: 0.0, max: 0.0 });
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(of(&hundred), Percentiles { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 });
    }

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        assert_eq!(["a b", "a,b", "a \"b\""].map(quoted), ["a b", "\"a,b\"", "\"a \"\"b\"\"\""]);
    }

    #[test]
    fn cells_that_spreadsheets_would_compute_are_text_and_numbers_are_numbers() {
        let formulas = ["=cmd|' /C calc'!A0", "+1-2", "-a.wav", "@SUM(A1,1)", "\t=1", "\r=1"];
        let texts = ["'=cmd|' /C calc'!A0", "'+1-2", "'-a.wav", "\"'@SUM(A1,1)\"", "\"'\t=1\"", "\"'\r=1\""];
        assert_eq!(formulas.map(quoted), texts);
        assert_eq!(["-12.5", "0.1", "1e-7", ""].map(quoted), ["-12.5", "0.1", "1e-7", ""]);
    }
}
