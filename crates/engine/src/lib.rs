//! Speech to text over a model and a backend: sessions that take audio and give events, any number of them on one device.
//!
//! ```
//! use voxtral_cpu::{CpuBackend, CpuOptions};
//! use voxtral_engine::{Engine, EngineOptions, Event, SessionOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = voxtral_digits::model();
//! let backend = CpuBackend::new(&model, CpuOptions::default())?;
//! let engine = Engine::new(&model, Box::new(backend), EngineOptions::default())?;
//! let mut session = engine.session(SessionOptions::default())?;
//! session.push_samples(&[0.0; 16000])?; // 16 kHz mono, in pieces of any size
//! session.finish();
//! while let Some(event) = session.next_event() {
//!     if let Event::Text(text) = event? {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One thread owns the backend. Each round it gathers the audio that has arrived in all sessions into one
//! [`encode`](voxtral_model::Backend::encode) and the positions that are due into one [`decode`](voxtral_model::Backend::decode),
//! live sessions first:
//!
//! ```text
//! push_samples ─ MelStream ─queue─┐                       ┌─ Transcript ─queue─ next_event
//! push_samples ─ MelStream ─queue─┼─ encode ─ decode ─────┼─ Transcript ─queue─ next_event
//! push_samples ─ MelStream ─queue─┘                       └─ Transcript ─queue─ next_event
//! ```
//! A session's tokens depend on its own audio and delay alone: not on how the samples were cut, on other sessions, or on the
//! [`Decoding`].

#![forbid(unsafe_code)]

mod contained;
mod counters;
mod decoding;
mod engine;
mod error;
mod front_end;
mod inbox;
mod port;
mod running;
mod schedule;
mod scheduler;
mod session;
mod templates;

pub use counters::Counters;
pub use decoding::Decoding;
pub use engine::{Engine, EngineOptions};
pub use error::EngineError;
pub use schedule::Schedule;
pub use session::{AudioIn, Events, Session, SessionOptions, Stopper};
pub use voxtral_transcript::{Event, SessionStats, Summary};
