//! One file from the Hub into the cache: whole, or kept as far as it came.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
};

use ureq::http::header;

use super::{
    HubError,
    cache::{ModelCache, create_dir},
    checksum::Checksum,
    client::{Attempt, Client, Facts},
};

/// Bytes read at a time.
const BLOCK: usize = 256 << 10;

/// A file that is to be had.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) cache: &'a ModelCache,
    pub(super) model: &'a str,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
    pub(super) facts: &'a Facts,
}

impl Transfer<'_> {
    /// Fetches the content unless it is there, and checks it; `progress` is told how many bytes of it there are.
    ///
    /// The rest of a file is asked for where a part of it lies in the cache. If the whole is wrong then, the part was, and the
    /// file is fetched once more from its beginning.
    pub(super) fn run(&self, progress: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let blob = self.cache.blob(&self.facts.etag);
        let _lock = self.cache.lock(&self.facts.etag)?;
        if let Ok(there) = fs::metadata(&blob)
            && self.facts.size.is_none_or(|size| size == there.len())
        {
            progress(there.len());
            return Ok(());
        }
        if let Some(parent) = blob.parent() {
            create_dir(parent)?;
        }
        let partial = blob.with_added_extension("incomplete");
        let mut part = fs::metadata(&partial).map_or(0, |found| found.len());
        loop {
            tracing::info!(file = self.file, model = self.model, from = part, "from the Hub");
            self.client.retrying(self.file, || self.receive(&partial, progress))?;
            let Some((expected, got)) = Checksum::of_etag(&self.facts.etag).mismatch(&partial)? else {
                return fs::rename(&partial, &blob).map_err(HubError::disk("rename", &partial));
            };
            fs::remove_file(&partial).map_err(HubError::disk("remove", &partial))?;
            if part == 0 {
                let (model, file) = (self.model.to_owned(), self.file.to_owned());
                return Err(HubError::WrongHash { model, file, expected, got });
            }
            tracing::warn!(file = self.file, "the part that was in the cache is damaged");
            part = 0;
        }
    }

    /// One try to complete the partial file.
    fn receive(&self, partial: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), Attempt> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(partial);
        let mut file = open.map_err(HubError::disk("create", partial))?;
        let mut have = file.metadata().map_err(HubError::disk("read", partial))?.len();
        match self.facts.size {
            Some(size) if have == size && size > 0 => return Ok(()),
            Some(size) if have > size => have = 0,
            _ => {}
        }
        let mut response = self.client.content(self.commit, self.file, have)?;
        let begins = match response.status().as_u16() {
            206 => response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok()).and_then(first),
            200 => Some(0),
            _ => None,
        };
        let start = match begins {
            Some(begins) if begins == have || begins == 0 => begins,
            // Not what was asked for, or nothing from there on: from the beginning, then.
            _ => {
                response = self.client.content(self.commit, self.file, 0)?;
                0
            }
        };
        file.set_len(start).map_err(HubError::disk("cut", partial))?;
        file.seek(SeekFrom::Start(start)).map_err(HubError::disk("seek in", partial))?;
        let whole = self.copy(response.into_body().into_reader(), &mut file, partial, start, progress);
        // What came before a cut is worth as much as what came before the end.
        file.sync_all().map_err(HubError::disk("flush", partial))?;
        let received = whole?;
        match self.facts.size {
            Some(size) if received < size => {
                let cut = io::Error::new(ErrorKind::UnexpectedEof, format!("{received} of {size} bytes arrived"));
                Err(Attempt::Cut(Box::new(cut.into())))
            }
            Some(expected) if received > expected => {
                drop(file);
                fs::remove_file(partial).map_err(HubError::disk("remove", partial))?;
                let (model, file) = (self.model.to_owned(), self.file.to_owned());
                Err(HubError::WrongSize { model, file, expected }.into())
            }
            _ => Ok(()),
        }
    }

    /// Copies until the end, or beyond the size that the Hub says; the bytes that there are then.
    fn copy(
        &self,
        mut from: impl Read,
        to: &mut File,
        path: &Path,
        start: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, Attempt> {
        let mut block = vec![0; BLOCK];
        let mut received = start;
        progress(received);
        while self.facts.size.is_none_or(|size| received <= size) {
            match from.read(&mut block) {
                Ok(0) => break,
                Ok(read) => {
                    to.write_all(&block[..read]).map_err(HubError::disk("write", path))?;
                    received += read as u64;
                    progress(received);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Attempt::Cut(Box::new(error.into()))),
            }
        }
        Ok(received)
    }
}

/// The first byte of a `Content-Range`: `bytes 5-9/10`.
fn first(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim().split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_a_range_is_read() {
        assert_eq!(first("bytes 5-9/10"), Some(5));
        for range in ["bytes */10", "items 5-9/10", "", "bytes"] {
            assert_eq!(first(range), None, "{range}");
        }
    }
}
