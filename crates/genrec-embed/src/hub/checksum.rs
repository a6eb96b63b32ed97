//! The hash by which the Hub names a file's content.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{HubError, names::is_hex};
use crate::hash::hex;

/// What an `ETag` of the Hub says of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of the content: a file in the large file storage.
    Sha256(String),
    /// SHA-1 of git's header and the content: a file in git itself.
    Git(String),
    /// Nothing, as on a mirror with tags of its own.
    Unknown,
}

impl Checksum {
    pub(super) fn of_etag(etag: &str) -> Self {
        let tag = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        if is_hex(&tag, 64) {
            Self::Sha256(tag)
        } else if is_hex(&tag, 40) {
            Self::Git(tag)
        } else {
            Self::Unknown
        }
    }

    /// The expected and the found hash of a file, where they differ.
    pub(super) fn mismatch(&self, path: &Path) -> Result<Option<(String, String)>, HubError> {
        let (expected, got) = match self {
            Self::Unknown => return Ok(None),
            Self::Sha256(expected) => (expected, digest(Sha256::new(), path)?),
            Self::Git(expected) => {
                let length = std::fs::metadata(path).map_err(HubError::disk("read", path))?.len();
                (expected, digest(Sha1::new_with_prefix(format!("blob {length}\0")), path)?)
            }
        };
        Ok((*expected != got).then(|| (expected.clone(), got)))
    }
}

fn digest(mut hash: impl Digest, path: &Path) -> Result<String, HubError> {
    let mut file = File::open(path).map_err(HubError::disk("read", path))?;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => hash.update(&block[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(HubError::disk("read", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_apart_and_content_is_compared() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        for tag in [format!("\"{git}\""), format!("W/\"{git}\""), format!("\"{sha256}\""), sha256.to_uppercase()] {
            let checksum = Checksum::of_etag(&tag);
            assert_ne!(checksum, Checksum::Unknown);
            assert_eq!(checksum.mismatch(file.path()).unwrap(), None, "{tag}");
        }
        let other = Checksum::of_etag(&"0".repeat(64)).mismatch(file.path()).unwrap();
        assert_eq!(other, Some(("0".repeat(64), sha256.to_owned())));
        assert_eq!(Checksum::of_etag("\"d41d8cd98f00b204e9800998ecf8427e\""), Checksum::Unknown);
    }
}
