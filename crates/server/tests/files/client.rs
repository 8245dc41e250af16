//! A client that sends forms, in one go or as slowly as it likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::common::Running;

const BOUNDARY: &str = "a-boundary-that-is-in-no-file";

/// A form, in the order in which its fields are named.
#[derive(Clone, Default)]
pub struct Form {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Form {
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes());
        self
    }

    pub fn file(mut self, bytes: &[u8]) -> Self {
        self.part("name=\"file\"; filename=\"a file\"\r\nContent-Type: application/octet-stream", bytes);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn part(&mut self, what: &str, bytes: &[u8]) {
        self.body
            .extend_from_slice(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {what}\r\n\r\n").as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
    }

    /// All of it.
    pub fn body(&self) -> Vec<u8> {
        [&self.body, format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }
}

pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// Sends a form for a transcription.
pub fn post(server: &Running, form: &Form) -> Answer {
    post_to(server, "/v1/audio/transcriptions", form)
}

pub fn post_to(server: &Running, path: &str, form: &Form) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent.post(server.url(path));
    for (name, value) in &form.headers {
        request = request.header(name, value);
    }
    if form.headers.iter().all(|(name, _)| name != "content-type") {
        request = request.header("content-type", kind());
    }
    answer(request.send(&form.body()[..]).unwrap())
}

pub fn get(server: &Running, path: &str) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    answer(agent.get(server.url(path)).call().unwrap())
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    Answer { status: response.status().as_u16(), headers, body }
}

fn kind() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

/// A chunked body that is sent piece by piece.
pub struct Sending(TcpStream);

impl Sending {
    pub fn begin(server: &Running) -> Self {
        let mut stream = TcpStream::connect(server.address).unwrap();
        // Against hanging.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            server.address,
            kind()
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.0.write_all(b"0\r\n\r\n").unwrap();
    }

    /// Reads what comes back, up to this.
    pub fn read_until(&mut self, what: &str) {
        let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
        while !String::from_utf8_lossy(&read).contains(what) {
            let count = self.0.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the answer ended: {}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&buffer[..count]);
        }
    }

    /// Everything that comes back, the head included.
    pub fn answer(mut self) -> String {
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).unwrap();
        answer
    }
}
