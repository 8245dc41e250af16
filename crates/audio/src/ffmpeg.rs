//! The second decoder: an ffmpeg on the PATH, which reads what is not built in.
//!
//! It gets a file by its name, a pipe's bytes on its standard input, or there the file that a pipe was kept in, and gives WAV
//! on its standard output, with silence where packets leave a gap. It ends with what reads it. What it complains of is damage.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use crate::error::{Error, Result};
use crate::input::Input;
use crate::options::AudioOptions;

/// Complaints that are kept until somebody asks.
const COMPLAINTS: usize = 64;
/// A complaint is cut off after so many bytes.
const MAX_LINE: usize = 300;

/// A running ffmpeg. Dropping it ends it.
pub(crate) struct Ffmpeg {
    child: Child,
    complaints: Receiver<String>,
    last: Option<String>,
}

/// Starts ffmpeg over `input`, and gives it with the WAV that it writes.
///
/// # Errors
/// [`Error::NeedsFfmpeg`] where there is none, [`Error::Ffmpeg`] where too much of a pipe has been read to begin anew.
pub(crate) fn start(program: &str, mut input: Input, options: &AudioOptions, format: &str) -> Result<(Ffmpeg, Input)> {
    let path = input.path().map(Path::to_owned);
    // What a pipe was kept in has no name, but can be sought as some formats must be, where it is opened as standard input.
    let kept = if cfg!(unix) { input.kept()? } else { None };
    if path.is_none() && kept.is_none() && !input.restart()? {
        let message = "the beginning of the pipe is gone; give the file itself".to_owned();
        return Err(Error::Ffmpeg { format: format.to_owned(), message });
    }
    let by_name = path.as_deref().or(kept.is_some().then_some(Path::new("/dev/fd/0")));
    let mut source = OsString::from(if by_name.is_some() { "file:" } else { "pipe:0" });
    source.extend(by_name.map(Path::as_os_str));
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error"]);
    // What is read may name other files and addresses: a pipe's content opens none of them, a file's no address.
    let protocols = if by_name.is_some() { "file,pipe" } else { "pipe" };
    command.args(["-protocol_whitelist", protocols, "-i"]).arg(source);
    let track = options.track.map_or(0, |track| track.saturating_sub(1));
    command.args(["-map", &format!("0:a:{track}"), "-vn", "-sn", "-dn"]);
    command.args(["-af", "aresample=async=1:min_hard_comp=0.02:first_pts=0", "-c:a", "pcm_f32le"]);
    command.args(["-f", "wav", "-bitexact", "pipe:1"]);
    command.stdin(match (&path, kept) {
        (Some(_), _) => Stdio::null(),
        (None, Some(kept)) => Stdio::from(kept),
        (None, None) => Stdio::piped(),
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Error::NeedsFfmpeg { format: format.to_owned() },
        _ => Error::Io(e),
    })?;
    let (sender, complaints) = sync_channel(COMPLAINTS);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("a process without the pipes that were asked for").into());
    };
    if let Some(stdin) = child.stdin.take() {
        std::thread::Builder::new().name("audio-ffmpeg-in".to_owned()).spawn(move || feed(input, stdin))?;
    }
    let listen = move || {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        // Whoever reads too slowly loses complaints, and ffmpeg never waits.
        while matches!(lines.by_ref().take(1 << 16).read_until(b'\n', &mut line), Ok(1..)) {
            let text: String =
                String::from_utf8_lossy(&line).trim().chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
            line.clear();
            if !text.is_empty() {
                let _ = sender.try_send(text);
            }
        }
    };
    std::thread::Builder::new().name("audio-ffmpeg-err".to_owned()).spawn(listen)?;
    let output = Input::stream(stdout)?;
    Ok((Ffmpeg { child, complaints, last: None }, output))
}

/// Gives ffmpeg all of a pipe; it may have enough before the end.
fn feed(mut input: Input, mut stdin: ChildStdin) {
    input.settle();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = input.read(&mut buffer) {
        if stdin.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

impl Ffmpeg {
    /// What it has complained of since it was last asked; the first of it, as ffmpeg says one thing in many lines.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        let mut first = None;
        loop {
            match self.complaints.try_recv() {
                Ok(line) => {
                    self.last = Some(line.clone());
                    first = first.or(Some(line));
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return first,
            }
        }
    }

    /// Waits for it to end, when its output has. What it said, where that was not to its satisfaction.
    pub(crate) fn outcome(&mut self) -> Option<String> {
        let failed = !self.child.wait().is_ok_and(|status| status.success());
        // Its errors end with it.
        while let Ok(line) = self.complaints.recv() {
            self.last = Some(line);
            if !failed {
                return self.last.take();
            }
        }
        failed.then(|| self.last.take().unwrap_or_else(|| "it failed without a word".to_owned()))
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
