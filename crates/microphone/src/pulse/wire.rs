//! PulseAudio's native protocol, as far as recording needs it: packets, and the tagged values in them.
//!
//! A packet is a header of five numbers and a payload. On the control channel, the payload is a command: its number, a tag by which its
//! answer is known, and values, each after a letter that says what it is. On other channels it is samples.
//!
//! Version 13 of the protocol (PulseAudio 0.9.15, 2009) has all that is needed, and servers answer a client in its own version. Later
//! ones only have more to skip.

use std::io::{self, Read, Write};

use crate::Error;

pub(super) const VERSION: u32 = 13;

/// Of an index, and of a size that the server may choose.
pub(super) const NONE: u32 = u32::MAX;

const CONTROL: u32 = u32::MAX;

/// Servers send no longer packets.
const LONGEST: u32 = 16 << 20;

pub(super) mod command {
    pub const ERROR: u32 = 0;
    pub const REPLY: u32 = 2;
    pub const CREATE_RECORD_STREAM: u32 = 5;
    pub const AUTH: u32 = 8;
    pub const SET_CLIENT_NAME: u32 = 9;
    pub const GET_SERVER_INFO: u32 = 20;
    pub const GET_SOURCE_INFO_LIST: u32 = 24;
    pub const SUBSCRIBE: u32 = 35;
    pub const RECORD_STREAM_KILLED: u32 = 65;
    pub const SUBSCRIBE_EVENT: u32 = 66;
    pub const RECORD_STREAM_MOVED: u32 = 79;
}

/// What a server sends.
pub(super) enum Packet {
    /// A command or an answer, from its number on.
    Control(Values),
    /// Samples of the only stream that there is.
    Samples(Vec<u8>),
}

pub(super) fn read_packet(from: &mut impl Read) -> io::Result<Packet> {
    let mut header = [0; 20];
    from.read_exact(&mut header)?;
    let [length, channel] = [0, 4].map(|at| u32::from_be_bytes([0, 1, 2, 3].map(|i| header[at + i])));
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    Ok(if channel == CONTROL { Packet::Control(Values { bytes: payload, at: 0 }) } else { Packet::Samples(payload) })
}

/// A command that is being put together.
pub(super) struct Command(Vec<u8>);

impl Command {
    pub(super) fn new(command: u32, tag: u32) -> Self {
        Self(Vec::new()).u32(command).u32(tag)
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.raw(b'L').bytes(&value.to_be_bytes())
    }

    pub(super) fn bool(self, value: bool) -> Self {
        self.raw(if value { b'1' } else { b'0' })
    }

    /// One without zeros in it.
    pub(super) fn string(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.raw(b't').bytes(value.as_bytes()).raw(0),
            None => self.raw(b'N'),
        }
    }

    pub(super) fn blob(self, value: &[u8]) -> Self {
        self.raw(b'x').bytes(&(value.len() as u32).to_be_bytes()).bytes(value)
    }

    pub(super) fn properties(self, properties: &[(&str, &str)]) -> Self {
        let all = properties.iter().fold(self.raw(b'P'), |command, (key, value)| {
            let value = [value.as_bytes(), b"\0"].concat();
            command.string(Some(key)).u32(value.len() as u32).blob(&value)
        });
        all.string(None)
    }

    /// Signed 16 bit little-endian, one channel.
    pub(super) fn mono_s16(self, rate: u32) -> Self {
        let (s16le, channels, position_mono) = (3, 1, 0);
        let spec = self.raw(b'a').raw(s16le).raw(channels).bytes(&rate.to_be_bytes());
        spec.raw(b'm').raw(channels).raw(position_mono)
    }

    fn raw(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn send(self, to: &mut impl Write) -> io::Result<()> {
        let mut packet = Vec::with_capacity(20 + self.0.len());
        for number in [self.0.len() as u32, CONTROL, 0, 0, 0] {
            packet.extend(number.to_be_bytes());
        }
        packet.extend(self.0);
        to.write_all(&packet)
    }
}

/// Tagged values, one after the other.
#[derive(Debug)]
pub(super) struct Values {
    bytes: Vec<u8>,
    at: usize,
}

const CUT: Error = Error::Protocol("an answer is cut short");
const OTHER: Error = Error::Protocol("an answer holds something else than expected");

impl Values {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        if self.byte()? != b'L' {
            return Err(OTHER);
        }
        self.number()
    }

    /// Nothing where there is none. What is not UTF-8 is replaced.
    pub(super) fn string(&mut self) -> Result<Option<String>, Error> {
        match self.byte()? {
            b'N' => Ok(None),
            b't' => {
                let rest = &self.bytes[self.at..];
                let length = rest.iter().position(|&byte| byte == 0).ok_or(CUT)?;
                let string = String::from_utf8_lossy(&rest[..length]).into_owned();
                self.at += length + 1;
                Ok(Some(string))
            }
            _ => Err(OTHER),
        }
    }

    /// Passes over some values, whatever they are.
    pub(super) fn skip(&mut self, values: usize) -> Result<(), Error> {
        for _ in 0..values {
            match self.byte()? {
                b'1' | b'0' | b'N' => {}
                b'B' => self.pass(1)?,
                b'L' | b'V' => self.pass(4)?,
                b'a' => self.pass(6)?,
                b'R' | b'r' | b'U' | b'T' => self.pass(8)?,
                b't' => {
                    self.at -= 1;
                    self.string()?;
                }
                b'x' => {
                    let length = self.number()?;
                    self.pass(length as usize)?;
                }
                b'm' => {
                    let channels = self.byte()?;
                    self.pass(channels.into())?;
                }
                b'v' => {
                    let channels = self.byte()?;
                    self.pass(4 * usize::from(channels))?;
                }
                // A key, the length of its value and that, and so on up to a key that is none.
                b'P' => {
                    while self.string()?.is_some() {
                        self.skip(2)?;
                    }
                }
                _ => return Err(OTHER),
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u32, Error> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
        self.at += bytes.len();
        Ok(u32::from_be_bytes(*bytes))
    }

    fn pass(&mut self, bytes: usize) -> Result<(), Error> {
        if self.bytes.len() - self.at < bytes {
            return Err(CUT);
        }
        self.at += bytes;
        Ok(())
    }
}

/// What the number of an error means.
pub(super) fn reason(code: u32) -> String {
    let known = match code {
        1 => "no access",
        3 => "an argument is not valid",
        5 => "there is no such device",
        6 => "connection refused",
        8 => "it took too long",
        9 => "no key to it",
        10 => "an error of its own",
        15 => "its state does not allow that",
        17 => "its version is another",
        19 => "it does not support that",
        25 => "reading or writing failed",
        26 => "the device is in use",
        _ => return format!("error {code}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(command: Command) -> Values {
        let mut packet = Vec::new();
        command.send(&mut packet).unwrap();
        match read_packet(&mut &packet[..]).unwrap() {
            Packet::Control(values) => values,
            Packet::Samples(_) => panic!("not samples"),
        }
    }

    fn all_kinds() -> Command {
        let some = Command::new(7, 8).bool(true).bool(false).string(None).string(Some("é")).blob(&[1, 2, 3]);
        let spec = some.properties(&[("a.key", "a value"), ("b", "")]).mono_s16(16_000);
        let volumes = spec.raw(b'v').raw(2).bytes(&[0; 8]).raw(b'V').bytes(&[0; 4]);
        volumes.raw(b'U').bytes(&[0; 8]).raw(b'B').raw(9).u32(42)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut values = values(all_kinds());
        assert_eq!((values.u32().unwrap(), values.u32().unwrap()), (7, 8));
        values.skip(2).unwrap();
        assert_eq!(values.string().unwrap(), None);
        assert_eq!(values.string().unwrap().as_deref(), Some("é"));
        values.skip(8).unwrap();
        assert_eq!(values.u32().unwrap(), 42);
        assert!(values.is_empty());
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        let whole = values(all_kinds()).bytes;
        for length in 0..whole.len() {
            let mut cut = Values { bytes: whole[..length].to_vec(), at: 0 };
            assert!(cut.skip(15).is_err(), "{length} bytes");
        }
        for at in 0..whole.len() {
            for flipped in [1, 0x10, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flipped;
                // An error or not, but nothing worse.
                let _ = Values { bytes, at: 0 }.skip(20);
            }
        }
    }

    #[test]
    fn a_packet_that_claims_to_be_huge_is_refused() {
        let error = read_packet(&mut &[0xff; 40][..]).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
