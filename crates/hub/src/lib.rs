//! Downloads from the Hugging Face Hub, or a mirror of it, into the cache that Hugging Face's own programs use.
//!
//! ```no_run
//! use voxtral_hub::{Cache, Hub, Repo};
//!
//! let repo = Repo::parse("mistralai/Voxtral-Mini-4B-Realtime-2602")?;
//! let hub = Hub::new("https://huggingface.co", None, Cache::new("cache/hub"))?;
//! let all = |names: &[String]| names.to_vec();
//! let folder = hub.download(&repo, &all, &mut |event| println!("{event:?}"))?;
//! # Ok::<_, voxtral_hub::Error>(())
//! ```
//!
//! [`Cache`] is the layout on disk: [`Cache::snapshot`] finds what is there, whoever downloaded it. [`Hub::download`] gets what is not.
//! Nothing here reads the environment, but for `HTTPS_PROXY` and the other variables that name a proxy.
//!
//! # What happens when I …
//!
//! * **end the program** in the middle, in whatever way: the bytes that came stay in a file beside their place, and the next download goes
//!   on from there. A file is in its place only when it is whole and its checksum is right.
//! * **download twice at a time**: the second waits until the first is done with a file, and then has it. Hugging Face's own
//!   programs take the same locks.
//! * **lose the connection**: it is tried again, with growing waits, as long as bytes come.
//! * **give it a token**: it goes to the Hub's own address and to no other, wherever the Hub redirects to.

#![forbid(unsafe_code)]

mod cache;
mod checksum;
mod download;
mod error;
mod fetch;
mod http;
mod partial;
mod repo;

pub use cache::Cache;
pub use download::{Event, Hub};
pub use error::Error;
pub use repo::Repo;
