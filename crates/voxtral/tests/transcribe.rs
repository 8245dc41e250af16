//! One input from its first sample to its last word, whatever it is and however it ends.

use std::io::{self, Read};
use std::sync::mpsc;

use voxtral::{
    AudioError, AudioOptions, AudioSource, BackendChoice, Collect, Config, Damage, End, EngineError, Error, Options,
    Sink, Source, Stop, TokenRecord, Voxtral, Word,
};

const DIGITS: &str = "four seven one one nine zero two six three five eight";
const SAMPLE: &[u8] = include_bytes!("../../../samples/digits.wav");

fn voxtral() -> Voxtral {
    Voxtral::open(&Config { backend: BackendChoice::Cpu, ..Config::default() }, &mut |_| {}).unwrap()
}

fn decoded(bytes: &'static [u8]) -> AudioSource {
    AudioSource::from_reader(bytes, None).unwrap()
}

fn samples() -> Vec<f32> {
    let (mut source, mut samples) = (decoded(SAMPLE), Vec::new());
    while let Some(block) = source.next_block().unwrap() {
        samples.extend_from_slice(block);
    }
    samples
}

/// All that a sink is told.
#[derive(Default)]
struct Heard {
    text: String,
    all: Collect,
    damage: Vec<Damage>,
    done: Vec<(f64, Option<f64>)>,
    /// The text at the end, and whether it was cut short.
    ends: Vec<(String, bool)>,
    /// Text after which writing fails.
    full: Option<&'static str>,
}

impl Sink for Heard {
    fn token(&mut self, token: &TokenRecord) -> io::Result<()> {
        self.all.token(token)
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.text += text;
        if self.full.is_some_and(|full| self.text.contains(full)) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn word(&mut self, word: &Word) -> io::Result<()> {
        self.all.word(word)
    }

    fn damage(&mut self, damage: &Damage) -> io::Result<()> {
        self.damage.push(damage.clone());
        Ok(())
    }

    fn progress(&mut self, done_s: f64, total_s: Option<f64>) -> io::Result<()> {
        self.done.push((done_s, total_s));
        Ok(())
    }

    fn end(&mut self, end: &End<'_>) -> io::Result<()> {
        self.ends.push((end.summary.text.clone(), end.cut_short.is_some()));
        Ok(())
    }
}

fn hear(voxtral: &Voxtral, source: Source, options: &Options) -> (Heard, Result<String, Error>) {
    let mut heard = Heard::default();
    let outcome = voxtral.transcribe(source, options, &mut heard).map(|summary| summary.text);
    (heard, outcome)
}

#[test]
fn every_source_gives_the_same() {
    let voxtral = voxtral();
    let pieces: Vec<Vec<f32>> = samples().chunks(999).map(<[f32]>::to_vec).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/digits.wav");
    let sources = [
        ("file", Source::file(path).unwrap(), false),
        ("decoded", decoded(SAMPLE).into(), false),
        ("stream", Source::stream(SAMPLE, &AudioOptions::default()).unwrap(), true),
        ("samples", Source::samples(samples()), false),
        ("pieces", Source::live(pieces), true),
    ];
    let mut first = None;
    for (label, source, live) in sources {
        assert_eq!(source.is_live(), live, "{label}");
        let (heard, outcome) = hear(&voxtral, source, &Options::default());
        assert_eq!((outcome.unwrap().as_str(), heard.text.as_str()), (DIGITS, DIGITS), "{label}");
        assert_eq!(heard.ends, [(DIGITS.to_owned(), false)], "{label}");
        assert_eq!(*first.get_or_insert(heard.all.clone()), heard.all, "{label}");
        assert_eq!((heard.all.words.len(), heard.all.tokens.len()), (11, 113), "{label}");
    }
}

#[test]
fn progress_reaches_the_end_of_a_recording() {
    let length_s = samples().len() as f64 / 16e3;
    let (heard, _) = hear(&voxtral(), Source::samples(samples()), &Options::default());
    assert_eq!(heard.done[0], (0.08, Some(length_s)));
    assert_eq!(heard.done.last(), Some(&(length_s, Some(length_s))));
    let (heard, _) = hear(&voxtral(), Source::live([samples()]), &Options::default());
    assert!(heard.done.iter().all(|(_, total_s)| total_s.is_none()));
}

#[test]
fn a_recording_that_is_cut_off_is_heard_to_the_cut() {
    let (heard, outcome) = hear(&voxtral(), decoded(&SAMPLE[..80_000]).into(), &Options::default());
    assert_eq!(outcome.unwrap(), "four seven one");
    assert_eq!(heard.ends, [("four seven one".to_owned(), false)]);
    let [damage] = &heard.damage[..] else { panic!("{:?}", heard.damage) };
    assert_eq!((damage.at_s, damage.lost_s), (2.499, 5.696), "{damage:?}");
}

#[test]
fn what_came_before_a_failure_of_reading_is_told_before_the_error() {
    let failing = SAMPLE[..80_000].chain(Failing);
    let (heard, outcome) =
        hear(&voxtral(), AudioSource::from_reader(failing, None).unwrap().into(), &Options::default());
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Audio(AudioError::Io(_))), "{error}");
    assert_eq!(heard.ends, [("four seven one".to_owned(), true)]);
}

/// A disk that can be read no further.
struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken on purpose"))
    }
}

#[test]
fn damage_is_told_with_its_place() {
    let voxtral = voxtral();
    let mut told = 0;
    for at in (1000..2600).step_by(50) {
        let mut aac = include_bytes!("../../audio/tests/data/tone.aac").to_vec();
        aac[at..at + 4].fill(0xff);
        let bytes: &'static [u8] = Box::leak(aac.into_boxed_slice());
        let mut source = decoded(bytes);
        while let Ok(Some(_)) = source.next_block() {}
        let (heard, _) = hear(&voxtral, decoded(bytes).into(), &Options::default());
        assert_eq!(heard.damage, source.take_damage(), "damage at {at}");
        assert!(heard.damage.iter().all(|damage| (0.0..0.6).contains(&damage.at_s)), "{:?}", heard.damage);
        told += heard.damage.len();
    }
    assert!(told > 5, "{told}");
}

#[test]
fn a_sink_that_fails_ends_it() {
    let (sent, received) = mpsc::sync_channel(0);
    let feeding = std::thread::spawn(move || {
        // Until nobody takes it any more.
        while sent.send(samples()).is_ok() {}
    });
    let mut heard = Heard { full: Some("seven"), ..Heard::default() };
    let error = voxtral().transcribe(Source::live(received), &Options::default(), &mut heard).unwrap_err();
    assert!(matches!(&error, Error::Sink(e) if e.kind() == io::ErrorKind::StorageFull), "{error}");
    assert!(heard.text.ends_with("seven") && heard.ends.is_empty(), "{}", heard.text);
    feeding.join().unwrap();
}

#[test]
fn a_stop_ends_audio_that_is_waited_for() {
    let stop = Stop::new();
    assert_eq!((stop.stop(), stop.is_stopped()), (0, true));
    let stop = Stop::new();
    let (voxtral, options) = (voxtral(), Options { stop: Some(stop.clone()), ..Options::default() });
    // Nothing follows the first half, and yet the sender stays.
    let (sent, received) = mpsc::channel();
    sent.send(samples()[..60_000].to_vec()).unwrap();
    let (told, text) = mpsc::channel();
    struct Told(mpsc::Sender<String>);
    impl Sink for Told {
        fn text(&mut self, text: &str) -> io::Result<()> {
            self.0.send(text.to_owned()).map_err(io::Error::other)
        }
    }
    let summary = std::thread::scope(|scope| {
        let running = scope.spawn(|| voxtral.transcribe(Source::live(received), &options, &mut Told(told)));
        assert_eq!(text.recv().unwrap(), "four");
        assert_eq!(stop.stop(), 1);
        running.join().unwrap().unwrap()
    });
    assert!(summary.text.starts_with("four seven") && summary.audio_s == 3.75, "{summary:?}");
    drop(sent);
    assert_eq!(stop.stop(), 0, "nothing is left of a transcription that has ended");
    let (heard, outcome) = hear(&voxtral, Source::samples(samples()), &options);
    assert_eq!((outcome.unwrap().as_str(), heard.ends.len()), ("", 1), "after a stop nothing is heard");
}

#[test]
fn a_reader_that_panics_is_an_error() {
    let mut pieces = vec![samples()].into_iter();
    let broken = std::iter::from_fn(move || Some(pieces.next().expect("on purpose")));
    let (heard, outcome) = hear(&voxtral(), Source::live(broken), &Options::default());
    assert!(matches!(outcome, Err(Error::BrokeOff)));
    assert_eq!(heard.ends, [(DIGITS.to_owned(), true)]);
}

#[test]
fn audio_comes_no_faster_than_it_is_spoken() {
    let start = std::time::Instant::now();
    let (heard, outcome) = hear(&voxtral(), Source::spoken(&samples()[..12_800]), &Options::default());
    outcome.unwrap();
    assert_eq!(heard.all.tokens.len(), 20);
    assert!(start.elapsed() >= Source::spoken_after(12_800), "it cannot be early");
    assert_eq!([1, 1280, 1281].map(|at| Source::spoken_after(at).as_millis()), [80, 80, 160]);
}

#[test]
fn an_engine_that_fails_is_an_error_without_an_end() {
    let config = Config { backend: BackendChoice::Cpu, ..Config::default() };
    let model = config.model.open().unwrap();
    let backend = config.open_backend(&model, &mut |_| {}).unwrap().backend;
    let voxtral = Voxtral::with_backend(&config, model, Box::new(failing::Failing(backend))).unwrap();
    let (heard, outcome) = hear(&voxtral, Source::samples(samples()), &Options::default());
    assert!(matches!(&outcome, Err(Error::Engine(EngineError::Backend(_)))), "{outcome:?}");
    assert!(heard.ends.is_empty());
}

/// A device that fails while text is decoded.
mod failing {
    use voxtral::{Backend, BackendError, BackendInfo, Delay};
    use voxtral_model::{DecodeSpan, EncodeSpan, Prediction, Stage, StreamId};

    pub struct Failing(pub Box<dyn Backend>);

    impl Backend for Failing {
        fn info(&self) -> BackendInfo {
            self.0.info()
        }

        fn stream_bytes(&self, span: usize, tokens: usize) -> u64 {
            self.0.stream_bytes(span, tokens)
        }

        fn free_bytes(&self) -> Result<u64, BackendError> {
            self.0.free_bytes()
        }

        fn open(&mut self, delay: Delay, span: usize) -> Result<StreamId, BackendError> {
            self.0.open(delay, span)
        }

        fn fork(&mut self, of: StreamId, span: usize) -> Result<StreamId, BackendError> {
            self.0.fork(of, span)
        }

        fn grow(&mut self, stream: StreamId, tokens: usize) -> Result<(), BackendError> {
            self.0.grow(stream, tokens)
        }

        fn close(&mut self, stream: StreamId) {
            self.0.close(stream);
        }

        fn encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<(), BackendError> {
            self.0.encode(batch)
        }

        fn decode(&mut self, batch: &[DecodeSpan<'_>], out: &mut Vec<Prediction>) -> Result<(), BackendError> {
            if batch.iter().any(|span| span.position + span.ids.len() > 60) {
                return Err(BackendError::Device { device: "cpu".into(), what: "broken on purpose".into() });
            }
            self.0.decode(batch, out)
        }

        fn inspect(&mut self, stage: Stage) -> Result<Vec<f32>, BackendError> {
            self.0.inspect(stage)
        }
    }
}
