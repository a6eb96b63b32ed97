//! SHA-256 over named parts.

use std::{fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};

use crate::error::{EmbedError, Result};

/// Hashes parts, each preceded by its length, so that no two lists of parts run together.
#[derive(Default)]
pub(crate) struct PartHasher(Sha256);

impl PartHasher {
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds bytes of fixed length.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Adds a file's length and content without holding it in memory.
    pub(crate) fn file(mut self, path: &Path) -> Result<Self> {
        let error = |source| EmbedError::Io { action: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(error)?;
        self.0.update(file.metadata().map_err(error)?.len().to_le_bytes());
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block).map_err(error)? {
                0 => return Ok(self),
                read => self.0.update(&block[..read]),
            }
        }
    }

    pub(crate) fn bytes(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    pub(crate) fn hex(self) -> String {
        hex(&self.bytes())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together_and_files_count_like_bytes() {
        assert_ne!(
            PartHasher::default().part(b"ab").part(b"c").hex(),
            PartHasher::default().part(b"a").part(b"bc").hex()
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"content").unwrap();
        assert_eq!(
            PartHasher::default().file(file.path()).unwrap().hex(),
            PartHasher::default().part(b"content").hex()
        );
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
