//! Encrypted connections.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};
use voxtral_server::{ServerConfig, Tls, TlsError};

/// A certificate for localhost that is its own authority, and the files that it and its key are in.
struct Identity {
    certificate: CertificateDer<'static>,
    certificate_file: PathBuf,
    key_file: PathBuf,
    _dir: TempDir,
}

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&certificate_file, made.cert.pem()).unwrap();
    fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    Identity { certificate: made.cert.der().clone(), certificate_file, key_file, _dir: dir }
}

fn server_of(identity: &Identity, config: ServerConfig) -> Running {
    let tls = Tls::open(&identity.certificate_file, &identity.key_file).unwrap();
    server_with(ServerConfig { tls: Some(tls), ..config })
}

#[test]
fn who_trusts_the_certificate_is_answered() {
    let identity = identity();
    let server = server_of(&identity, ServerConfig::default());
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(server.address));
    let answer = ask(&mut stream, "GET /ready", &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn who_does_not_encrypt_or_says_nothing_is_left() {
    let server =
        server_of(&identity(), ServerConfig { header_timeout: Duration::from_secs(1), ..ServerConfig::default() });
    for said in [&b""[..], b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let mut stream = connect(server.address);
        stream.write_all(said).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{heard:?}");
    }
}

#[test]
fn files_that_do_not_belong_together_are_an_error() {
    let (one, other) = (identity(), identity());
    let error = |certificate: &PathBuf, key: &PathBuf| Tls::open(certificate, key).err();
    assert!(matches!(error(&one.certificate_file, &other.key_file), Some(TlsError::Pair { .. })));
    assert!(matches!(error(&one.key_file, &one.key_file), Some(TlsError::File { what: "a certificate", .. })));
    assert!(matches!(
        error(&one.certificate_file, &one.certificate_file),
        Some(TlsError::File { what: "a private key", .. })
    ));
    assert!(matches!(error(&one.certificate_file.join("x"), &one.key_file), Some(TlsError::File { .. })));
}
