//! Warm starts: what all streams of a delay begin with is computed once, and every session is a fork of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;

use voxtral_model::{BackendError, DecodeSpan, Delay, EncodeSpan, MAX_DECODE_ROWS, StreamId};

use crate::contained::Contained;
use crate::front_end::ModelParts;
use crate::scheduler::{BACKGROUND_TOKENS, Opening};
use crate::{EngineError, Schedule};

/// The streams that sessions are forked from. None is here before it is whole.
#[derive(Default)]
pub(crate) struct Templates {
    whole: BTreeMap<Delay, StreamId>,
    under_way: VecDeque<WarmUp>,
}

/// A template in the making.
struct WarmUp {
    schedule: Schedule,
    stream: Option<StreamId>,
    encoded: usize,
    decoded: usize,
    waiting: Waiting,
}

/// Who waits for a template.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) sessions: Vec<Opening>,
    pub(crate) prewarms: Vec<Sender<Result<(), EngineError>>>,
}

impl Templates {
    pub(crate) fn get(&self, delay: Delay) -> Option<StreamId> {
        self.whole.get(&delay).copied()
    }

    /// Those who wait for the template of a delay, which will be made.
    pub(crate) fn wait_for(&mut self, schedule: Schedule) -> &mut Waiting {
        let known = self.under_way.iter().position(|warm_up| warm_up.schedule.delay == schedule.delay);
        let index = known.unwrap_or_else(|| {
            let waiting = Waiting::default();
            self.under_way.push_back(WarmUp { schedule, stream: None, encoded: 0, decoded: 0, waiting });
            self.under_way.len() - 1
        });
        &mut self.under_way[index].waiting
    }

    /// Whether a template is being made.
    pub(crate) fn is_warming_up(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Makes the next one of the calls that templates need. Returns who need wait no longer, and the template or why there is none.
    pub(crate) fn step(
        &mut self,
        backend: &mut Contained,
        model: &ModelParts,
        encode_tokens: usize,
    ) -> Option<(Waiting, Result<StreamId, EngineError>)> {
        let mut warm_up = self.under_way.pop_front()?;
        match warm_up.step(backend, model, encode_tokens) {
            Ok(None) => {
                self.under_way.push_front(warm_up);
                None
            }
            Ok(Some(stream)) => {
                self.whole.insert(warm_up.schedule.delay, stream);
                Some((warm_up.waiting, Ok(stream)))
            }
            Err(error) => {
                warm_up.stream.into_iter().for_each(|stream| backend.close(stream));
                Some((warm_up.waiting, Err(error.into())))
            }
        }
    }
}

impl WarmUp {
    /// One call of the backend. The stream, once it is whole.
    fn step(
        &mut self,
        backend: &mut Contained,
        model: &ModelParts,
        encode_tokens: usize,
    ) -> Result<Option<StreamId>, BackendError> {
        let tokens = self.schedule.constant_tokens();
        let most = encode_tokens.min(BACKGROUND_TOKENS);
        let stream = match self.stream {
            Some(stream) => stream,
            None => *self.stream.insert(backend.open(self.schedule.delay, most)?),
        };
        if self.encoded < tokens {
            backend.grow(stream, tokens)?;
            let end = tokens.min(self.encoded + most);
            let mel =
                &model.constant_frames(&self.schedule)[self.encoded * model.token_values..end * model.token_values];
            backend.encode(&[EncodeSpan { stream, mel }])?;
            self.encoded = end;
        } else {
            let position = self.decoded;
            self.decoded = tokens.min(position + MAX_DECODE_ROWS);
            let mut ids = vec![model.tokenizer.streaming_pad(); self.decoded - position];
            if position == 0 {
                ids[0] = model.tokenizer.bos();
            }
            backend.decode(&[DecodeSpan { stream, position, ids: &ids, runners_up: None }], &mut Vec::new())?;
        }
        Ok((self.decoded == tokens).then_some(stream))
    }
}
