//! A sound server of its own for a test: a real one, with an output that goes nowhere and can be recorded.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing takes so long; it only keeps a test from hanging.
const HANGS: Duration = Duration::from_secs(60);

/// The output of every server here.
pub const SINK: &str = "nowhere";

/// What it plays, as a device to record from, and what people call that.
pub const MONITOR: &str = "nowhere.monitor";
pub const DESCRIPTION: &str = "Monitor of Test-Output";

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    PulseAudio,
    PipeWire,
}

pub struct Daemon {
    pub dir: TempDir,
    processes: Vec<Child>,
    /// The number of the output's module.
    sink: String,
}

impl Daemon {
    /// Starts one, and waits until it answers.
    pub fn start(kind: Kind) -> Self {
        let mut daemon = Self { dir: tempfile::tempdir().unwrap(), processes: Vec::new(), sink: String::new() };
        fs::create_dir(daemon.socket().parent().unwrap()).unwrap();
        match kind {
            Kind::PulseAudio => {
                let socket = format!("module-native-protocol-unix socket={}", daemon.socket().display());
                let idle = ["--exit-idle-time=-1", "--disable-shm", "--use-pid-file=no", "-L", &socket];
                daemon.run("pulseaudio", "pulseaudio", &[&["-n", "--daemonize=no"], &idle[..]].concat());
            }
            Kind::PipeWire => {
                let address = format!("--address={}", daemon.bus());
                daemon.run("dbus-daemon", "dbus-daemon", &["--session", "--nofork", "--nopidfile", &address]);
                daemon.wait_for(&daemon.dir.path().join("bus"));
                daemon.run("pipewire", "pipewire", &[]);
                daemon.wait_for(&daemon.dir.path().join("pipewire-0"));
                daemon.run("wireplumber", "wireplumber", &[]);
                daemon.run("pipewire-pulse", "pipewire-pulse", &[]);
            }
        }
        daemon.wait_for(&daemon.socket());
        daemon.plug();
        daemon
    }

    fn run(&mut self, program: &str, package: &str, args: &[&str]) {
        let log = File::create(self.dir.path().join(format!("{program}.log"))).unwrap();
        let command = &mut Command::new(program);
        self.environment(command).args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let started = command.spawn();
        self.processes.push(started.unwrap_or_else(|error| panic!("{program}: {error}: apt install {package}")));
    }

    /// What programs find this server by.
    pub fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for name in ["PULSE_SERVER", "PULSE_COOKIE", "PULSE_RUNTIME_PATH", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command.env("DBUS_SESSION_BUS_ADDRESS", self.bus());
        command.env("XDG_RUNTIME_DIR", self.dir.path()).env("HOME", self.dir.path())
    }

    /// PipeWire's session manager needs one.
    fn bus(&self) -> String {
        format!("unix:path={}/bus", self.dir.path().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("pulse/native")
    }

    fn wait_for(&self, socket: &Path) {
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(start.elapsed() < HANGS, "nothing answers at {}", socket.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs PulseAudio's own control program.
    pub fn pactl(&self, args: &[&str]) -> String {
        let command = &mut Command::new("pactl");
        let run = self.environment(command).args(args).output();
        let run = run.unwrap_or_else(|error| panic!("pactl: {error}: apt install pulseaudio-utils"));
        assert!(run.status.success(), "{args:?}: {run:?}");
        String::from_utf8(run.stdout).unwrap()
    }

    /// Adds the output.
    pub fn plug(&mut self) {
        let name = format!("sink_name={SINK}");
        let described = "sink_properties=device.description=Test-Output";
        self.sink = self.pactl(&["load-module", "module-null-sink", &name, described]).trim().to_owned();
        // It is there a moment later with PipeWire.
        let start = Instant::now();
        while !self.pactl(&["info"]).contains(&format!("Default Source: {MONITOR}")) {
            assert!(start.elapsed() < HANGS, "the output does not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts the output to sleep, whatever is played or recorded, or wakes it.
    pub fn sleep(&self, on: bool) {
        self.pactl(&["suspend-sink", SINK, if on { "1" } else { "0" }]);
    }

    /// Takes the output away.
    pub fn unplug(&self) {
        self.pactl(&["unload-module", &self.sink]);
    }

    /// Begins to play a file, as fast as it is spoken.
    pub fn play(&mut self, path: &Path) {
        let command = &mut Command::new("paplay");
        self.environment(command).arg(format!("--device={SINK}")).arg(path).stderr(Stdio::null());
        self.processes.push(command.spawn().unwrap());
    }

    /// How many record from it now.
    pub fn recordings(&self) -> usize {
        self.pactl(&["list", "short", "source-outputs"]).lines().count()
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        for process in &mut self.processes {
            // It has ended already, or does so now.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
