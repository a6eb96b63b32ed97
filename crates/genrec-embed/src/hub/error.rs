//! What can go wrong between here and the Hub.

use std::path::PathBuf;

/// Why files of the Hub could not be had. Access tokens are in none of its messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A setting cannot be used: it names something that no Hub has, or would lead out of the cache.
    #[error("the {what} is `{value}`, it must be {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// Its value; never that of a token.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The Hub has no such model, or does not show it to everybody.
    #[error(
        "{endpoint} has no model `{model}` with a revision `{revision}`, or shows it to its owners alone; check the names, or give a token that may read it"
    )]
    NoSuchRepo {
        /// Address of the Hub.
        endpoint: String,
        /// Model id.
        model: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("the model `{model}` has no revision `{revision}`; name a branch, a tag or a commit that it has")]
    NoSuchRevision {
        /// Model id.
        model: String,
        /// What was asked for.
        revision: String,
    },
    /// The model lacks a file.
    #[error(
        "the model `{model}` has no `{file}` at revision `{revision}`; it may be another kind of model, or was not uploaded whole"
    )]
    NoSuchFile {
        /// Model id.
        model: String,
        /// Branch, tag or commit.
        revision: String,
        /// The file.
        file: String,
    },
    /// The Hub wants to know who asks, or does not let them.
    #[error("the Hub answers {status} to the request for {file} of `{model}`: {}", if *.token {
        "the access token is not valid or may not read this model; make one that may, and accept the model's terms on its page where it has some"
    } else {
        "it wants an access token; give one by `with_token`"
    })]
    Unauthorised {
        /// Model id.
        model: String,
        /// What was asked for.
        file: String,
        /// HTTP status: 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// The Hub answers, but not with what was asked for.
    #[error(
        "the Hub answers {status} to the request for {file} of `{model}` after {tries} tries; try again later, or ask whoever runs it"
    )]
    Status {
        /// Model id.
        model: String,
        /// What was asked for.
        file: String,
        /// HTTP status.
        status: u16,
        /// Times it was asked.
        tries: u32,
    },
    /// The connection could not be made, or was cut too often.
    #[error(
        "the connection for {file} of `{model}` failed {tries} times; what has arrived is kept, and the next call goes on from there: {source}"
    )]
    Connection {
        /// Model id.
        model: String,
        /// What was asked for.
        file: String,
        /// Times it was tried.
        tries: u32,
        /// The last failure.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The Hub sends from one address to the next.
    #[error("the request for {file} of `{model}` was redirected {redirects} times; check the endpoint")]
    Redirects {
        /// Model id.
        model: String,
        /// What was asked for.
        file: String,
        /// How often.
        redirects: usize,
    },
    /// The Hub's list of files cannot be read.
    #[error("the Hub's list of the files of `{model}` is not what a Hub answers; check the endpoint: {source}")]
    Listing {
        /// Model id.
        model: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A file's name would lead out of the cache. Nothing was downloaded.
    #[error(
        "the model `{model}` lists a file `{file}`, whose name leads out of a directory; nothing of it was downloaded"
    )]
    UnsafeName {
        /// Model id.
        model: String,
        /// The name.
        file: String,
    },
    /// A file's content is not that of the hash which the Hub gives. It was deleted.
    #[error(
        "`{file}` of `{model}` has hash {got}, the Hub says {expected}; it was deleted. Download it again; if that does not help, it is damaged on the Hub or on the way"
    )]
    WrongHash {
        /// Model id.
        model: String,
        /// The file.
        file: String,
        /// Hash by the Hub, in hexadecimal.
        expected: String,
        /// Hash of what arrived, in hexadecimal.
        got: String,
    },
    /// More bytes arrived than the file has by the Hub. It was deleted.
    #[error("more than the {expected} bytes of `{file}` of `{model}` arrived; it was deleted. Download it again")]
    WrongSize {
        /// Model id.
        model: String,
        /// The file.
        file: String,
        /// Bytes by the Hub.
        expected: u64,
    },
    /// The disk is full.
    #[error("no room for `{}`; free some, or choose another cache directory: what has arrived is kept", path.display())]
    NoRoom {
        /// The file that was being written.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file of the cache could not be read, written or renamed.
    #[error("cannot {action} {}: {source}{}", path.display(), genrec_files::remedy(source))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl HubError {
    /// An error of the disk: a full one has a variant of its own, as it has a remedy of its own.
    pub(super) fn disk(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::NoRoom { path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_told_from_other_failures() {
        use std::io::Write;
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
        assert!(matches!(HubError::disk("write", "a")(full), HubError::NoRoom { path, .. } if path.as_os_str() == "a"));
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert!(matches!(HubError::disk("write", "a")(other), HubError::Io { action: "write", .. }));
    }

    #[test]
    fn a_message_says_whether_a_token_was_sent() {
        let error = |token| HubError::Unauthorised { model: "a/b".into(), file: "c".into(), status: 401, token };
        assert!(error(false).to_string().contains("with_token"));
        assert!(error(true).to_string().contains("not valid"));
    }
}
