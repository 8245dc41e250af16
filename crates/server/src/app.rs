//! What all requests share.

use std::sync::Arc;

use voxtral::{Options, Voxtral};

use crate::ServerConfig;
use crate::error::ApiError;
use crate::keep::Kept;
use crate::metrics::Metrics;
use crate::slots::Slots;

pub(crate) struct App {
    pub(crate) voxtral: Voxtral,
    pub(crate) config: ServerConfig,
    pub(crate) slots: Slots,
    pub(crate) metrics: Metrics,
}

impl App {
    pub(crate) fn new(voxtral: Voxtral, config: ServerConfig) -> Self {
        let slots = Slots::new(config.max_sessions);
        Self { voxtral, config, slots, metrics: Metrics::default() }
    }

    /// The names under which the model is served, its own first.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.voxtral.model().name.as_str()).chain(self.config.aliases.iter().map(String::as_str))
    }

    /// Whether a client that names this model means the one that is served.
    pub(crate) fn check_model(&self, name: &str) -> Result<(), ApiError> {
        if self.models().any(|served| served == name) {
            return Ok(());
        }
        Err(ApiError::model_not_found(name, self.models()))
    }

    /// Begins to keep a session, if anything is kept. It is called by the id of its request.
    pub(crate) fn keep(self: &Arc<Self>, id: &str, options: &Options) -> Option<Kept> {
        self.config.keep.as_ref()?.begin(self, id, options)
    }

    /// Why a transcription that is asked for now would not begin.
    pub(crate) fn check_ready(&self) -> Result<(), ApiError> {
        let engine = self.voxtral.engine();
        if engine.has_stopped() {
            return Err(ApiError::engine_stopped());
        }
        if engine.counters().round_under_way > self.config.stuck_after {
            return Err(ApiError::engine_stuck());
        }
        self.slots.check()
    }
}
