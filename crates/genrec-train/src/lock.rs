//! One writer a directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Result, TrainError};

/// Name of the locked file, which stays when the lock is given back: removing it could take another's lock away.
const NAME: &str = ".lock";

/// A directory that nobody else locks until this value is dropped or its process ends, however it ends.
///
/// Two runs that write to one directory would each replace the other's checkpoints. Readers take no lock; one that comes while
/// a part is replaced may have to read again.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use genrec_train::{DirectoryLock, TrainError};
///
/// let lock = DirectoryLock::take(dir.path())?;
/// assert!(matches!(DirectoryLock::take(dir.path()), Err(TrainError::Locked { .. })));
/// drop(lock);
/// DirectoryLock::take(dir.path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Said aloud, for a process that was started meanwhile may have inherited the file; there is nobody to tell of an error.
        let _ = self.file.unlock();
    }
}

impl DirectoryLock {
    /// Locks a directory, and makes it when it is not there. It does not wait.
    ///
    /// Where the system cannot lock the file, as on some network file systems, a warning is logged and nothing is locked.
    ///
    /// # Errors
    /// [`TrainError::Locked`] when another run holds it, [`TrainError::Io`] when the file `.lock` in it cannot be made.
    pub fn take(dir: &Path) -> Result<Self> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { action, path, source }
        };
        genrec_files::create_dir_all(dir).map_err(failed("create", dir))?;
        let path = dir.join(NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TrainError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "the directory cannot be locked");
            }
        }
        Ok(Self { file })
    }
}
