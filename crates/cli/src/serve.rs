//! `voxtral serve`: a model behind HTTP and WebSockets, until it is told to end.

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use voxtral_server::{Server, ServerConfig};

use crate::args::Serve;
use crate::open;
use crate::output::say;

pub(crate) fn run(args: &Serve) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the server's threads")?;
    let listening = runtime.block_on(TcpListener::bind(args.listen));
    let listener = listening.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot tell where it listens")?;

    open::tell_of_default(&args.setup);
    let voxtral = open::open(&args.setup, false, |backend| backend)?;
    voxtral.engine().prewarm(&[voxtral.delay()])?;
    let config = ServerConfig { max_sessions: args.max_sessions.into(), ..ServerConfig::default() };
    let server = Server::new(voxtral, config);
    runtime.block_on(async {
        let ended = ended()?;
        say(&format!("serving at http://{address}"));
        server.serve(listener, ended).await.context("cannot go on listening")
    })
}

/// Ready when the program is told to end.
fn ended() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut interrupted, mut terminated) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        say("taking no more requests; those that are running end");
    })
}
