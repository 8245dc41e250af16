//! What a file's bytes must come to.

use std::fmt::Write;
use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// As the Hub's ETags have it, and as the cache calls the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(String);

impl Checksum {
    /// Of an ETag: 64 digits are the SHA-256 of a large file, 40 the SHA-1 by which git knows a small one.
    pub(crate) fn of_etag(etag: &str) -> Option<Self> {
        let digits = etag.trim_start_matches("W/").trim_matches('"');
        let known = matches!(digits.len(), 40 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        known.then(|| Self(digits.to_ascii_lowercase()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The checksum of the same kind of `size` bytes.
    pub(crate) fn of_bytes(&self, bytes: impl Read, size: u64) -> io::Result<Self> {
        if self.0.len() == 64 {
            digest(Sha256::new(), bytes)
        } else {
            digest(Sha1::new_with_prefix(format!("blob {size}\0")), bytes)
        }
    }
}

fn digest(mut hash: impl Digest, mut bytes: impl Read) -> io::Result<Checksum> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match bytes.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let mut digits = String::new();
    for byte in hash.finalize() {
        let _ = write!(digits, "{byte:02x}"); // a string takes everything
    }
    Ok(Checksum(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `sha256sum` and `git hash-object` say.
    #[test]
    fn checksums_are_those_of_sha256sum_and_git() {
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        for etag in [sha256, git] {
            let checksum = Checksum::of_etag(&format!("W/\"{}\"", etag.to_uppercase())).unwrap();
            assert_eq!(checksum.of_bytes(&b"hello"[..], 5).unwrap(), checksum);
            assert_ne!(checksum.of_bytes(&b"hellO"[..], 5).unwrap(), checksum);
        }
    }

    #[test]
    fn other_etags_are_none() {
        for etag in ["", "\"\"", "abc", &"g".repeat(64), &"../".repeat(20), &"a".repeat(63)] {
            assert_eq!(Checksum::of_etag(etag), None, "{etag}");
        }
    }
}
