//! The Hub's cache on disk, laid out as Hugging Face's tools lay it out, so that they share it.
//!
//! ```text
//! models--OWNER--NAME/blobs/ETAG                 contents, and ETAG.incomplete of those under way
//! models--OWNER--NAME/snapshots/COMMIT/FILE      links to them
//! models--OWNER--NAME/refs/REVISION              the commit of a branch or tag
//! .locks/models--OWNER--NAME/ETAG.lock           who writes
//! ```

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::HubError;
use crate::hash::hex;

/// What the names of Hugging Face's tools are below a home directory.
const HOME: &str = ".cache/huggingface";

/// The part of a cache that belongs to one model.
pub(super) struct ModelCache {
    dir: PathBuf,
    locks: PathBuf,
}

/// Held while a file is written; given back when dropped or when the process ends.
pub(super) struct Lock(Option<File>);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // There is nobody to tell of an error, and closing the file unlocks it too.
            let _ = file.unlock();
        }
    }
}

impl ModelCache {
    /// The model's part of a cache, or of Hugging Face's own.
    pub(super) fn new(cache: Option<&Path>, model: &str) -> Result<Self, HubError> {
        let cache = match (cache, std::env::home_dir()) {
            (Some(dir), _) => dir.to_owned(),
            (None, Some(home)) => home.join(HOME).join("hub"),
            (None, None) => {
                let (value, expected) = ("not given".to_owned(), "given, as this user has no home directory");
                return Err(HubError::Setting { what: "cache directory", value, expected });
            }
        };
        let folder = format!("models--{}", model.replace('/', "--"));
        Ok(Self { dir: cache.join(&folder), locks: cache.join(".locks").join(folder) })
    }

    /// Where the content of a tag lies. A tag that is no plain hash is not trusted as a name.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(blob_name(etag))
    }

    /// The directory of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// Waits until nobody else writes that content. Where the system cannot lock files nothing is locked.
    pub(super) fn lock(&self, etag: &str) -> Result<Lock, HubError> {
        create_dir(&self.locks)?;
        let path = self.locks.join(format!("{}.lock", blob_name(etag)));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(HubError::disk("create", &path))?;
        match file.lock() {
            Ok(()) => Ok(Lock(Some(file))),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the cache cannot be locked");
                Ok(Lock(None))
            }
        }
    }

    /// Puts content into the directory of a commit. Whatever else has that name there is replaced.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        let target = format!("{}blobs/{}", "../".repeat(2 + file.matches('/').count()), blob_name(etag));
        if fs::read_link(&path).is_ok_and(|there| there == Path::new(&target)) {
            return Ok(());
        }
        create_dir(path.parent().unwrap_or(&self.dir))?;
        let temporary = path.with_added_extension("tmp");
        // What a killed process left.
        let _ = fs::remove_file(&temporary);
        place(&target, &self.blob(etag), &temporary).map_err(HubError::disk("link", &temporary))?;
        fs::rename(&temporary, &path).map_err(|error| {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
            HubError::disk("rename", &path)(error)
        })
    }

    /// Notes the commit that a revision stands for.
    pub(super) fn note(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        create_dir(path.parent().unwrap_or(&self.dir))?;
        genrec_files::write(&path, commit.as_bytes()).map_err(HubError::disk("write", &path))
    }
}

#[cfg(unix)]
fn place(target: &str, _blob: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

/// Symbolic links need a privilege on Windows.
#[cfg(not(unix))]
fn place(_target: &str, blob: &Path, at: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, at).or_else(|_| fs::copy(blob, at).map(|_| ()))
}

fn blob_name(etag: &str) -> String {
    let tag = etag.trim().trim_start_matches("W/").trim_matches('"');
    if (32..=64).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        tag.to_owned()
    } else {
        hex(&Sha256::digest(tag))
    }
}

pub(super) fn create_dir(path: &Path) -> Result<(), HubError> {
    genrec_files::create_dir_all(path).map_err(HubError::disk("create", path))
}

/// The token that Hugging Face's tools have stored, if any.
pub(super) fn stored_token() -> Option<String> {
    let token = fs::read_to_string(std::env::home_dir()?.join(HOME).join("token")).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_no_hash_is_no_path() {
        let cache = ModelCache::new(Some(Path::new("/cache")), "owner/name").unwrap();
        let blobs = Path::new("/cache/models--owner--name/blobs");
        let hash = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(cache.blob(&format!("W/\"{hash}\"")), blobs.join(hash));
        for tag in ["\"../../x\"", "", "\"/etc/passwd\"", "\"abc\""] {
            let path = cache.blob(tag);
            assert_eq!(path.parent().unwrap(), blobs);
            assert_eq!(path.file_name().unwrap().len(), 64, "{tag}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_to_the_content_and_replace_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(Some(dir.path()), "name").unwrap();
        create_dir(&dir.path().join("models--name/blobs")).unwrap();
        for content in ["one", "two"] {
            fs::write(cache.blob(content), content).unwrap();
            cache.link("commit", "a/b/file", content).unwrap();
            cache.link("commit", "a/b/file", content).unwrap();
            assert_eq!(fs::read_to_string(cache.snapshot("commit").join("a/b/file")).unwrap(), content);
        }
        cache.note("refs/pr/1", "commit").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("models--name/refs/refs/pr/1")).unwrap(), "commit");
    }
}
