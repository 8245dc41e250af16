//! The contract of [`Backend`](crate::Backend), checked once for all backends: how far each stream is and what it may be asked next.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{AUDIO_WINDOW, BackendError, DecodeSpan, EncodeSpan, MAX_DECODE_ROWS, ModelConfig, StreamId};

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Most tokens of an encode span.
    pub span: usize,
    /// Tokens that it has memory for.
    pub capacity: usize,
    /// Tokens of audio heard.
    pub encoded: usize,
    /// Positions decoded.
    pub decoded: usize,
    /// The furthest that positions ever were decoded.
    furthest: usize,
    /// A call on it has begun and has not come to its end: what it holds is unknown.
    broken: bool,
}

/// What a backend knows of its streams, and the contract that its callers keep.
///
/// Each call of the trait is a question first and an entry last: `begin_encode` checks the call and takes the streams it names for
/// broken, `end_encode` notes what they have come to. Whatever happens in between, a call that does not come to its end leaves exactly its
/// own streams broken. A question that is answered with an error changes nothing.
#[derive(Debug)]
pub struct Ledger {
    streams: BTreeMap<StreamId, Entry>,
    opened: u64,
    encode_tokens: usize,
    /// Log-mel values of a token.
    token_values: usize,
    vocab: usize,
}

type Result<T> = std::result::Result<T, BackendError>;

fn refuse<T>(what: String) -> Result<T> {
    Err(BackendError::Contract(what))
}

impl Ledger {
    /// For a backend of such a model that takes `encode_tokens` tokens in an encode call.
    pub fn new(config: &ModelConfig, encode_tokens: usize) -> Self {
        let token_values = config.frames_per_token() * config.audio.mel_bins;
        Self { streams: BTreeMap::new(), opened: 0, encode_tokens, token_values, vocab: config.vocab }
    }

    /// A stream that is open and not broken.
    ///
    /// # Errors
    /// When it is not.
    pub fn get(&self, stream: StreamId) -> Result<&Entry> {
        match self.streams.get(&stream) {
            Some(entry) if !entry.broken => Ok(entry),
            Some(_) => refuse(format!("a call on stream {} failed: it can only be closed", stream.0)),
            None => refuse(format!("stream {} is not open", stream.0)),
        }
    }

    /// The entry of a stream that is about to be opened, for [`Self::add`].
    ///
    /// # Errors
    /// When its spans are longer than a call takes, or nothing.
    pub fn open(&self, span: usize) -> Result<Entry> {
        if !(1..=self.encode_tokens).contains(&span) {
            return refuse(format!("encode spans of {span} tokens: they have 1 to {}", self.encode_tokens));
        }
        Ok(Entry { span, capacity: 0, encoded: 0, decoded: 0, furthest: 0, broken: false })
    }

    /// The entry of a fork that is about to be made, for [`Self::add`].
    ///
    /// # Errors
    /// When the original is not open, or as [`Self::open`].
    pub fn fork(&self, of: StreamId, span: usize) -> Result<Entry> {
        let &Entry { encoded, decoded, furthest, .. } = self.get(of)?;
        Ok(Entry { capacity: encoded, encoded, decoded, furthest, ..self.open(span)? })
    }

    /// Enters a stream that was opened, under an id that was never given out.
    pub fn add(&mut self, entry: Entry) -> StreamId {
        let id = StreamId(self.opened);
        self.opened += 1;
        self.streams.insert(id, entry);
        id
    }

    /// Notes that a stream has memory for `tokens`, if that is more than it had.
    pub fn grown(&mut self, stream: StreamId, tokens: usize) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.capacity = entry.capacity.max(tokens);
        }
    }

    /// Strikes a stream out; false if there is none.
    pub fn close(&mut self, stream: StreamId) -> bool {
        self.streams.remove(&stream).is_some()
    }

    /// Begins an encode call. Returns which tokens of its stream each span is.
    ///
    /// # Errors
    /// When a span breaks the contract.
    pub fn begin_encode(&mut self, batch: &[EncodeSpan<'_>]) -> Result<Vec<Range<usize>>> {
        self.once_each(batch.iter().map(|span| span.stream))?;
        let tokens = batch.iter().map(|span| self.check_encode(span)).collect::<Result<Vec<_>>>()?;
        let total: usize = tokens.iter().map(Range::len).sum();
        if total > self.encode_tokens {
            return refuse(format!("{total} tokens in one encode, at most {}", self.encode_tokens));
        }
        self.mark(batch.iter().map(|span| span.stream), true);
        Ok(tokens)
    }

    fn check_encode(&self, &EncodeSpan { stream, mel }: &EncodeSpan<'_>) -> Result<Range<usize>> {
        let entry = self.get(stream)?;
        let StreamId(id) = stream;
        if mel.is_empty() || !mel.len().is_multiple_of(self.token_values) {
            return refuse(format!("stream {id}: {} mel values are no tokens of {}", mel.len(), self.token_values));
        }
        let tokens = mel.len() / self.token_values;
        if tokens > entry.span {
            return refuse(format!(
                "stream {id}: a span of {tokens} tokens, it was opened for spans of {}",
                entry.span
            ));
        }
        let end = entry.encoded + tokens;
        if end > entry.capacity {
            return refuse(format!("stream {id}: {end} tokens, it has memory for {}", entry.capacity));
        }
        Ok(entry.encoded..end)
    }

    /// Ends the encode call that these spans began.
    pub fn end_encode(&mut self, batch: &[EncodeSpan<'_>]) {
        for span in batch {
            if let Some(entry) = self.streams.get_mut(&span.stream) {
                entry.encoded += span.mel.len() / self.token_values;
            }
        }
        self.mark(batch.iter().map(|span| span.stream), false);
    }

    /// Begins a decode call.
    ///
    /// # Errors
    /// When a span breaks the contract.
    pub fn begin_decode(&mut self, batch: &[DecodeSpan<'_>]) -> Result<()> {
        self.once_each(batch.iter().map(|span| span.stream))?;
        batch.iter().try_for_each(|span| self.check_decode(span))?;
        let rows: usize = batch.iter().map(|span| span.ids.len()).sum();
        if rows > MAX_DECODE_ROWS {
            return refuse(format!("{rows} rows in one decode, at most {MAX_DECODE_ROWS}"));
        }
        self.mark(batch.iter().map(|span| span.stream), true);
        Ok(())
    }

    fn check_decode(&self, &DecodeSpan { stream, position, ids, runners_up }: &DecodeSpan<'_>) -> Result<()> {
        let entry = self.get(stream)?;
        let (StreamId(id), end) = (stream, position.saturating_add(ids.len()));
        if ids.is_empty() || position > entry.decoded {
            return refuse(format!(
                "stream {id}: positions {position}..{end} do not follow the {} decoded",
                entry.decoded
            ));
        }
        if end > entry.encoded || position + AUDIO_WINDOW < entry.encoded {
            return refuse(format!(
                "stream {id}: positions {position}..{end} are not among the audio kept, up to {}",
                entry.encoded
            ));
        }
        if position + MAX_DECODE_ROWS < entry.furthest {
            return refuse(format!(
                "stream {id}: position {position} is more than {MAX_DECODE_ROWS} behind {}, the furthest decoded",
                entry.furthest
            ));
        }
        let unknown = |token: &u32| *token as usize >= self.vocab;
        if let Some(token) = ids.iter().copied().find(unknown) {
            return refuse(format!("stream {id}: id {token} of a vocabulary of {}", self.vocab));
        }
        match runners_up.filter(unknown) {
            Some(from) => refuse(format!("stream {id}: runners-up from id {from} of a vocabulary of {}", self.vocab)),
            None => Ok(()),
        }
    }

    /// Ends the decode call that these spans began.
    pub fn end_decode(&mut self, batch: &[DecodeSpan<'_>]) {
        for span in batch {
            if let Some(entry) = self.streams.get_mut(&span.stream) {
                entry.decoded = span.position + span.ids.len();
                entry.furthest = entry.furthest.max(entry.decoded);
            }
        }
        self.mark(batch.iter().map(|span| span.stream), false);
    }

    fn once_each(&self, streams: impl Iterator<Item = StreamId>) -> Result<()> {
        let mut ids: Vec<_> = streams.collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(format!("stream {} has two spans in one call", pair[0].0)),
            None => Ok(()),
        }
    }

    fn mark(&mut self, streams: impl Iterator<Item = StreamId>, broken: bool) {
        for stream in streams {
            if let Some(entry) = self.streams.get_mut(&stream) {
                entry.broken = broken;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (Ledger, Vec<f32>) {
        let config = ModelConfig::released();
        let token = vec![0.0; config.frames_per_token() * config.audio.mel_bins];
        (Ledger::new(&config, 64), token)
    }

    fn refused<T>(result: Result<T>, words: &str) {
        match result {
            Err(BackendError::Contract(what)) => assert!(what.contains(words), "{what}"),
            _ => panic!("not refused: {words}"),
        }
    }

    /// The rest of the contract is what `conformance` asks of every backend.
    #[test]
    fn a_call_that_does_not_end_breaks_its_own_streams_only() {
        let (mut ledger, mel) = ledger();
        let [a, b] = [0, 1].map(|_| ledger.add(ledger.open(4).unwrap()));
        [a, b].into_iter().for_each(|stream| ledger.grown(stream, 10));
        let span = |stream| EncodeSpan { stream, mel: &mel };
        assert_eq!(ledger.begin_encode(&[span(a), span(b)]).unwrap(), [0..1, 0..1]);
        ledger.end_encode(&[span(a), span(b)]);
        ledger.begin_encode(&[span(a)]).unwrap();
        refused(ledger.begin_encode(&[span(b), span(a)]), "a call on stream 0 failed");
        refused(ledger.fork(a, 4), "a call on stream 0 failed");
        ledger.begin_encode(&[span(b)]).unwrap();
        ledger.end_encode(&[span(b)]);
        let decode = |stream| DecodeSpan { stream, position: 0, ids: &[1], runners_up: None };
        refused(ledger.begin_decode(&[decode(a)]), "failed");
        ledger.begin_decode(&[decode(b)]).unwrap();
        refused(ledger.begin_decode(&[decode(b)]), "failed");
        assert!(ledger.close(a) && ledger.close(b) && !ledger.close(a));
        assert_ne!(ledger.add(ledger.open(4).unwrap()), a);
    }

    #[test]
    fn capacity_only_grows() {
        let (mut ledger, _) = ledger();
        let stream = ledger.add(ledger.open(4).unwrap());
        ledger.grown(stream, 10);
        ledger.grown(stream, 3);
        assert_eq!(ledger.get(stream).unwrap().capacity, 10);
    }
}
