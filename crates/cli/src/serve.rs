//! `voxtral serve`: a model behind HTTP and WebSockets, until it is told to end.

use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use voxtral::Voxtral;
use voxtral_server::{ApiKeys, Keep, Server, ServerConfig, Tls};

use crate::args::{LogForm, Serve, Setup};
use crate::output::say;
use crate::{interrupt, open};

/// Most transcriptions at a time, unless somebody asks for more: so many live ones of the full-size model kept up on an H200
/// (docs/performance.md).
const MOST_SESSIONS: usize = 300;

pub(crate) fn run(args: &Serve) -> anyhow::Result<()> {
    let mut config = args.config()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the server's threads")?;
    let listening = runtime.block_on(TcpListener::bind(args.listen));
    let listener = listening.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot tell where it listens")?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };

    let silent = args.log == LogForm::Json;
    if !silent {
        open::tell_of_default(&args.setup);
    }
    let setup = args.setup.clone();
    let served = runtime.block_on(async {
        let loading = tokio::task::spawn_blocking(move || load(&setup, silent));
        let loaded = voxtral_server::serve_while_loading(&listener, &config, loading).await;
        let voxtral = loaded.context("opening the model broke off")??;
        if args.limits.max_sessions.is_none()
            && let Some(capacity) = voxtral.capacity()?
        {
            config.max_sessions = capacity.clamp(1, MOST_SESSIONS);
        }
        let (info, sessions) = (voxtral.info(), config.max_sessions);
        let server = Server::new(voxtral, config);
        let ended = ended(args.log)?;
        args.log.tell(&format!("serving at {scheme}://{address}"));
        tracing::info!(backend = info.backend, device = info.device, sessions, "ready");
        server.serve(listener, ended).await;
        anyhow::Ok(())
    });
    // What was cut short is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

/// Opens the model, and computes what every transcription begins with.
fn load(setup: &Setup, silent: bool) -> anyhow::Result<Voxtral> {
    let voxtral = open::open(setup, silent, |backend| backend)?;
    voxtral.engine().prewarm(&[voxtral.delay()])?;
    Ok(voxtral)
}

/// Ready when the program is told to end. When it is told so again, it does at once.
fn ended(log: LogForm) -> anyhow::Result<impl Future<Output = ()>> {
    let (told, ended) = oneshot::channel();
    interrupt::twice(move || {
        log.tell("taking no more requests; those that are running end");
        // Whoever does not wait for it has ended.
        let _ = told.send(());
    })?;
    Ok(async {
        if ended.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

impl LogForm {
    /// Says how it goes on.
    fn tell(self, line: &str) {
        match self {
            Self::Text => say(line),
            Self::Json => tracing::info!("{line}"),
        }
    }
}

impl Serve {
    /// What the flags come to.
    fn config(&self) -> anyhow::Result<ServerConfig> {
        let (access, limits) = (&self.access, &self.limits);
        anyhow::ensure!(
            self.listen.ip().is_loopback() || access.api_key_file.is_some() || access.no_auth,
            "other machines can reach {}: name a file of keys with --api-key-file, or let anybody ask with --no-auth",
            self.listen
        );
        let tls = access.tls_cert.as_ref().zip(access.tls_key.as_ref());
        let default = ServerConfig::default();
        Ok(ServerConfig {
            max_sessions: limits.max_sessions.map_or(default.max_sessions, usize::from),
            aliases: self.alias.clone(),
            max_upload_bytes: u64::from(limits.max_upload) << 20,
            max_audio: Duration::from_secs(60 * u64::from(limits.max_audio)),
            idle_timeout: limits.idle_timeout,
            keys: access.api_key_file.as_ref().map(ApiKeys::open).transpose()?,
            key_query: access.api_key_query.clone(),
            cors_origins: access.cors_origin.clone(),
            tls: tls.map(|(certificate, key)| Tls::open(certificate, key)).transpose()?,
            keep: self.keep.as_ref().map(Keep::open).transpose()?,
            max_connections: limits.max_connections.into(),
            drain_timeout: limits.drain_timeout,
            ..default
        })
    }
}
