//! Subtitle files, read back by a parser of others.

use proptest::prelude::*;
use subtp::srt::SubRip;
use subtp::vtt::{VttBlock, WebVtt};
use voxtral_transcript::render::{CueFormat, Cues, End, Sink, Subtitles};
use voxtral_transcript::{SessionStats, Summary, Word};

fn written(format: CueFormat, words: &[Word], audio_s: f64) -> String {
    let mut out = Vec::new();
    let mut sink = Subtitles::new(&mut out, format, false);
    words.iter().for_each(|word| sink.word(word).unwrap());
    let summary = Summary { text: String::new(), audio_s, stats: SessionStats::default() };
    let (total, peak_rss_bytes, peak_device_bytes) = (std::time::Duration::ZERO, 0, 0);
    sink.end(&End { summary: &summary, cut_short: None, total, peak_rss_bytes, peak_device_bytes }).unwrap();
    String::from_utf8(out).unwrap()
}

/// Start and end in milliseconds, and the lines.
type Shown = (u64, u64, Vec<String>);

fn expected(words: &[Word], audio_s: f64) -> Vec<Shown> {
    let mut cues = Cues::new(1.0);
    let mut all: Vec<_> = words.iter().flat_map(|word| cues.push(word)).collect();
    all.extend(cues.finish(audio_s));
    let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
    all.into_iter().map(|cue| (ms(cue.start_s), ms(cue.end_s), cue.lines)).collect()
}

fn ms(hours: u8, minutes: u8, seconds: u8, milliseconds: u16) -> u64 {
    (u64::from(hours) * 3600 + u64::from(minutes) * 60 + u64::from(seconds)) * 1000 + u64::from(milliseconds)
}

fn srt_read_back(text: &str) -> Vec<Shown> {
    let read = SubRip::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let numbers: Vec<_> = read.subtitles.iter().map(|cue| cue.sequence).collect();
    assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
    let cues = read.subtitles.into_iter().map(|cue| {
        let (from, to) = (cue.start, cue.end);
        let from = ms(from.hours, from.minutes, from.seconds, from.milliseconds);
        (from, ms(to.hours, to.minutes, to.seconds, to.milliseconds), cue.text)
    });
    cues.collect()
}

fn vtt_read_back(text: &str) -> Vec<Shown> {
    let read = WebVtt::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let cues = read.blocks.into_iter().map(|block| {
        let VttBlock::Que(cue) = block else { panic!("not a cue: {block:?}") };
        let (from, to) = (cue.timings.start, cue.timings.end);
        let from = ms(from.hours, from.minutes, from.seconds, from.milliseconds);
        let plain = |line: String| line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let lines = cue.payload.into_iter().map(plain).collect();
        (from, ms(to.hours, to.minutes, to.seconds, to.milliseconds), lines)
    });
    cues.collect()
}

proptest! {
    #[test]
    fn another_parser_reads_the_same_cues(
        all in proptest::collection::vec(("[a-z字<>&;.,!?'\"]{1,50}", 0_u32..40, 1_u32..20, any::<bool>()), 1..60),
        first in 0_u32..4_000_000,
    ) {
        let mut at_ms = first;
        let words: Vec<_> = all.into_iter().map(|(text, pause, length, after_space)| {
            let start_ms = at_ms + 80 * (pause / 2);
            at_ms = start_ms + 80 * length;
            let (start_s, end_s) = (f64::from(start_ms) / 1000.0, f64::from(at_ms) / 1000.0);
            Word { text, start_s, end_s, logprob: -0.1, alternatives: Vec::new(), after_space }
        }).collect();
        let audio_ms = at_ms + 300;
        let audio_s = f64::from(audio_ms) / 1000.0;
        let expected = expected(&words, audio_s);
        prop_assert_eq!(&srt_read_back(&written(CueFormat::Srt, &words, audio_s)), &expected);
        prop_assert_eq!(&vtt_read_back(&written(CueFormat::Vtt, &words, audio_s)), &expected);
        let mut before = 0;
        for (from, to, _) in &expected {
            prop_assert!(before <= *from && from < to && *to <= u64::from(audio_ms), "{:?}", expected);
            before = *to;
        }
    }
}
