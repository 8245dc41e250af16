//! Where the sound server is, and what it knows its users by.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A server that takes longer to answer is not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

const PORT: u16 = 4713;

const COOKIE: usize = 256;

/// Where a server may be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    Socket(PathBuf),
    /// A host, perhaps with a port.
    Host(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Host(host) => host.fmt(f),
        }
    }
}

impl Place {
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let socket = match self {
            Self::Socket(path) => UnixStream::connect(path)?,
            Self::Host(host) => {
                let addresses = (host.as_str(), PORT).to_socket_addrs().or_else(|_| host.to_socket_addrs())?;
                let mut failed = io::ErrorKind::NotFound.into();
                let connect = |address| TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| failed = e).ok();
                let Some(stream) = addresses.into_iter().find_map(connect) else { return Err(failed) };
                stream.set_nodelay(true)?;
                // What is done with it is the same for both kinds of sockets.
                OwnedFd::from(stream).into()
            }
        };
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }
}

/// What the environment says, as PulseAudio's own library understands it.
pub(super) struct Environment {
    pub(super) places: Vec<Place>,
    cookies: Vec<PathBuf>,
}

impl Environment {
    /// `var` gives the variables.
    pub(super) fn new(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let in_dir = |name: &str, file: &str| var(name).map(|dir| Path::new(&dir).join(file));

        let named = var("PULSE_SERVER").and_then(|servers| servers.into_string().ok());
        let usual = || {
            let sockets = [
                in_dir("PULSE_RUNTIME_PATH", "native"),
                in_dir("XDG_RUNTIME_DIR", "pulse/native"),
                Some("/mnt/wslg/PulseServer".into()),
                Some("/var/run/pulse/native".into()),
            ];
            sockets.into_iter().flatten().map(Place::Socket).collect()
        };
        let cookies = [
            var("PULSE_COOKIE").map(PathBuf::from),
            in_dir("XDG_CONFIG_HOME", "pulse/cookie"),
            in_dir("HOME", ".config/pulse/cookie"),
            in_dir("HOME", ".pulse-cookie"),
        ];
        Self {
            places: named.map_or_else(usual, |servers| servers.split_whitespace().map(place).collect()),
            cookies: cookies.into_iter().flatten().collect(),
        }
    }

    /// The first cookie that can be read. A server on this machine lets its own user in without one, but asks for something of its
    /// length.
    pub(super) fn cookie(&self) -> Vec<u8> {
        let cookie =
            self.cookies.iter().find_map(|path| std::fs::read(path).ok().filter(|bytes| bytes.len() == COOKIE));
        cookie.unwrap_or_else(|| vec![0; COOKIE])
    }
}

/// One entry of `PULSE_SERVER`. What may stand before it in braces says which machine it is for.
fn place(entry: &str) -> Place {
    let entry = entry.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(entry, |(_, after)| after);
    if let Some(path) = entry.strip_prefix("unix:").or_else(|| entry.starts_with('/').then_some(entry)) {
        return Place::Socket(path.into());
    }
    let host = ["tcp:", "tcp4:", "tcp6:"].iter().find_map(|prefix| entry.strip_prefix(prefix));
    Place::Host(host.unwrap_or(entry).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment::new(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn places(vars: &[(&str, &str)]) -> Vec<String> {
        environment(vars).places.iter().map(|place| format!("{place:?}")).collect()
    }

    #[test]
    fn a_server_that_is_named_is_the_only_one() {
        let all = "unix:/tmp/p {0123}unix:/q /r tcp:host tcp4:host:1 tcp6:[::1]:2 host";
        let expected = [
            "Socket(\"/tmp/p\")",
            "Socket(\"/q\")",
            "Socket(\"/r\")",
            "Host(\"host\")",
            "Host(\"host:1\")",
            "Host(\"[::1]:2\")",
            "Host(\"host\")",
        ];
        assert_eq!(places(&[("PULSE_SERVER", all), ("XDG_RUNTIME_DIR", "/run/user/1")]), expected);
    }

    #[test]
    fn without_one_it_is_looked_for_in_the_session_then_in_wslg_then_in_the_system() {
        let usual = ["Socket(\"/mnt/wslg/PulseServer\")", "Socket(\"/var/run/pulse/native\")"];
        assert_eq!(places(&[("PULSE_SERVER", "")]), usual);
        let session = [("XDG_RUNTIME_DIR", "/run/user/1"), ("PULSE_RUNTIME_PATH", "/p")];
        assert_eq!(places(&session)[..2], ["Socket(\"/p/native\")", "Socket(\"/run/user/1/pulse/native\")"]);
        assert_eq!(places(&session)[2..], usual);
    }

    #[test]
    fn the_first_cookie_that_is_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("short"), [1; 255]).unwrap();
        std::fs::create_dir_all(path("pulse")).unwrap();
        std::fs::write(path("pulse/cookie"), [2; COOKIE]).unwrap();
        let home = path("");
        assert_eq!(environment(&[("PULSE_COOKIE", &path("short")), ("XDG_CONFIG_HOME", &home)]).cookie(), [2; COOKIE]);
        assert_eq!(environment(&[("HOME", &home)]).cookie(), [0; COOKIE]);
    }
}
