//! Recording through a sound server that speaks PulseAudio's protocol.

mod server;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use voxtral_audio::SAMPLE_RATE;

use crate::backlog::Backlog;
use crate::clock::Clock;
use crate::device::choose;
use crate::{Device, Error, Microphone};
use server::{Environment, Place};
use wire::{Command, NONE, Packet, VERSION, Values, command, read_packet};

/// Signed 16 bit: half as much as f32, so that a server keeps twice as long what is not read.
const SAMPLE_BYTES: usize = 2;

/// 20 ms: what the server collects before it sends it.
const FRAGMENT: u32 = SAMPLE_RATE / 50 * SAMPLE_BYTES as u32;

/// A device that gives nothing for so long never will. PulseAudio's own outputs need two seconds.
const WAKING_UP: Duration = Duration::from_secs(10);

/// Of all that happens on a server, what happens to sources; and that one is removed.
const SOURCES: u32 = 2;
const SOURCE_REMOVED: u32 = 0x21;

pub(crate) fn devices() -> Result<Vec<Device>, Error> {
    devices_of(&environment())
}

pub(crate) fn open(device: Option<&str>) -> Result<Microphone, Error> {
    open_of(&environment(), device)
}

fn environment() -> Environment {
    Environment::new(|name| std::env::var_os(name))
}

fn devices_of(environment: &Environment) -> Result<Vec<Device>, Error> {
    Ok(Connection::open(environment)?.sources()?.into_iter().map(|(_, device)| device).collect())
}

fn open_of(environment: &Environment, wanted: Option<&str>) -> Result<Microphone, Error> {
    let mut connection = Connection::open(environment)?;
    let (numbers, devices): (Vec<u32>, Vec<Device>) = connection.sources()?.into_iter().unzip();
    let device = choose(&devices, wanted)?;
    // Somebody may send the default to another device under way, with a mixer. What was chosen here is what was meant.
    connection.record(&device.name, wanted.is_some())?;
    let Connection { mut socket, .. } = connection;
    socket.set_read_timeout(Some(WAKING_UP)).map_err(Error::Connection)?;
    let ours = socket.try_clone().map_err(Error::Connection)?;
    let end = move || {
        // It may have ended before.
        let _ = ours.shutdown(Shutdown::Both);
    };
    let number = devices.iter().position(|listed| listed == device).map_or(NONE, |at| numbers[at]);
    let mut source = Source { number, name: device.description.clone() };
    Microphone::start(device.clone(), Arc::default(), end, move |backlog| {
        let error = record(&mut socket, &mut source, backlog);
        backlog.end(Some(error));
    })
}

/// What is recorded from.
struct Source {
    number: u32,
    name: String,
}

/// Fills the backlog, until the stream ends.
fn record(socket: &mut UnixStream, source: &mut Source, backlog: &Backlog) -> Error {
    // A device may take a while to wake up: time counts from its first samples.
    let mut clock = None;
    loop {
        match read_packet(socket) {
            Ok(Packet::Samples(bytes)) => {
                let samples: Vec<f32> = bytes
                    .chunks_exact(SAMPLE_BYTES)
                    .map(|bytes| f32::from(i16::from_le_bytes([bytes[0], bytes[1]])) / 32768.0)
                    .collect();
                let now = Instant::now();
                if clock.is_none()
                    && let Err(error) = socket.set_read_timeout(None)
                {
                    return Error::Connection(error);
                }
                let lost = clock.get_or_insert_with(|| Clock::new(now)).arrived(samples.len(), now);
                backlog.push_after(lost, &samples);
            }
            Ok(Packet::Control(values)) => {
                if let Err(error) = source.heed(values) {
                    return error;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Error::NoAudio { name: source.name.clone() };
            }
            Err(error) => return ended(error),
        }
    }
}

impl Source {
    /// Takes note of an event. An error is that there is no more to record.
    fn heed(&mut self, mut event: Values) -> Result<(), Error> {
        let (kind, _tag) = (event.u32()?, event.u32()?);
        match kind {
            command::RECORD_STREAM_KILLED => return Err(self.gone()),
            command::RECORD_STREAM_MOVED => {
                let _stream = event.u32()?;
                self.number = event.u32()?;
                self.name = event.string()?.unwrap_or_default();
            }
            // PipeWire keeps a stream whose source is gone, and gives nothing.
            command::SUBSCRIBE_EVENT if event.u32()? == SOURCE_REMOVED && event.u32()? == self.number => {
                return Err(self.gone());
            }
            _ => {}
        }
        Ok(())
    }

    fn gone(&self) -> Error {
        Error::DeviceGone { name: self.name.clone() }
    }
}

/// A server that is being talked to.
struct Connection {
    socket: UnixStream,
    server: Place,
    tag: u32,
}

impl Connection {
    fn open(environment: &Environment) -> Result<Self, Error> {
        let mut tried = Vec::new();
        for server in &environment.places {
            match server.connect() {
                Ok(socket) => {
                    let mut connection = Self { socket, server: server.clone(), tag: 0 };
                    connection.introduce(&environment.cookie())?;
                    return Ok(connection);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Error::Refused { server: server.to_string() });
                }
                Err(error) => tried.push(format!("{server}: {error}")),
            }
        }
        Err(Error::NoServer { tried: tried.join("; ") })
    }

    fn introduce(&mut self, cookie: &[u8]) -> Result<(), Error> {
        self.call(command::AUTH, |command| command.u32(VERSION).blob(cookie))?;
        self.call(command::SET_CLIENT_NAME, |command| command.properties(&[("application.name", "voxtral")]))?;
        Ok(())
    }

    /// What can be recorded from, and its number.
    fn sources(&mut self) -> Result<Vec<(u32, Device)>, Error> {
        // The server's name and version, the user, the host, a format, the default output.
        let mut info = self.call(command::GET_SERVER_INFO, |command| command)?;
        info.skip(6)?;
        let default = info.string()?;

        let mut list = self.call(command::GET_SOURCE_INFO_LIST, |command| command)?;
        let mut sources = Vec::new();
        while !list.is_empty() {
            let number = list.u32()?;
            let name = list.string()?.unwrap_or_default();
            let description = list.string()?.unwrap_or_else(|| name.clone());
            // Format, channels, module, volume, muted.
            list.skip(5)?;
            let is_monitor = list.u32()? != NONE;
            // The output's name, latency, driver, flags, properties, latency.
            list.skip(6)?;
            let is_default = default.as_ref() == Some(&name);
            sources.push((number, Device { name, description, is_default, is_monitor }));
        }
        Ok(sources)
    }

    /// Starts the only stream of this connection.
    fn record(&mut self, device: &str, only_from_it: bool) -> Result<(), Error> {
        self.call(command::SUBSCRIBE, |command| command.u32(SOURCES))?;
        self.call(command::CREATE_RECORD_STREAM, |command| {
            let from = command.mono_s16(SAMPLE_RATE).u32(NONE).string(Some(device));
            // As much as the server will keep; not stopped; a fragment.
            let kept = from.u32(NONE).bool(false).u32(FRAGMENT);
            // Mixed and resampled as asked for: no "as the device has it", in five ways.
            let mixed = (0..5).fold(kept, |command, _| command.bool(false));
            // No variable rate, not only peaks; the device's latency as the fragment's.
            let moved = mixed.bool(only_from_it).bool(false).bool(false).bool(true);
            moved.properties(&[("media.name", "speech to text")]).u32(NONE)
        })?;
        Ok(())
    }

    /// Sends a command and waits for what answers it.
    fn call(&mut self, number: u32, fill: impl FnOnce(Command) -> Command) -> Result<Values, Error> {
        self.tag += 1;
        fill(Command::new(number, self.tag)).send(&mut self.socket).map_err(|error| self.failed(error))?;
        loop {
            // Samples may come before anybody asks for them, and events at any time.
            let Packet::Control(mut values) = read_packet(&mut self.socket).map_err(|error| self.failed(error))? else {
                continue;
            };
            let (answer, tag) = (values.u32()?, values.u32()?);
            if tag != self.tag {
                continue;
            }
            return match answer {
                command::REPLY => Ok(values),
                command::ERROR => match values.u32()? {
                    1 | 9 => Err(Error::Refused { server: self.server.to_string() }),
                    code => Err(Error::Server { why: wire::reason(code) }),
                },
                _ => Err(Error::Protocol("an answer is none")),
            };
        }
    }

    /// What it means that nothing can be read or written while something is asked for.
    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Error::Unanswered { server: self.server.to_string() }
            }
            _ => ended(error),
        }
    }
}

fn ended(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Error::ServerGone,
        io::ErrorKind::InvalidData => Error::Protocol("a packet is longer than any that a server sends"),
        _ => Error::Connection(error),
    }
}
