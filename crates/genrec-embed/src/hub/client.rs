//! Requests to the Hub: where they go, who may see the token, what is tried again.

use std::time::Duration;

use serde::Deserialize;
use ureq::{
    Agent, Body, Proxy,
    http::{HeaderMap, HeaderName, Response, Uri, header},
};

use super::{HubDownload, HubError, cache, names};

/// The public Hub.
const ENDPOINT: &str = "https://huggingface.co";
/// Redirects that are followed: the Hub itself needs one or two.
const MAX_REDIRECTS: usize = 5;
/// Longest list of files that is read, in bytes.
const MAX_LISTING: u64 = 64 << 20;
/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Why one try failed.
pub(super) enum Attempt {
    /// Another try would end the same way.
    Refused(HubError),
    /// The connection failed or was cut.
    Cut(Box<ureq::Error>),
    /// The Hub is busy or broken.
    Busy(u16),
}

impl From<HubError> for Attempt {
    fn from(error: HubError) -> Self {
        Self::Refused(error)
    }
}

/// A repository at a commit.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    pub(super) fn names(&self) -> Vec<&str> {
        self.siblings.iter().map(|file| file.rfilename.as_str()).collect()
    }
}

/// What the Hub says of a file.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// An answer, and what the redirects to it said of a file in the large file storage.
struct Answer {
    response: Response<Body>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

pub(super) struct Client<'a> {
    settings: &'a HubDownload,
    endpoint: String,
    token: Option<String>,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a HubDownload) -> Result<Self, HubError> {
        let endpoint = settings.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() {
            let expected = "an address, such as `https://host`";
            return Err(HubError::Setting { what: "endpoint", value: endpoint, expected });
        }
        // A token that is stored for the public Hub is not for others.
        let stored = || if settings.endpoint.is_none() { cache::stored_token() } else { None };
        let token = settings.token.clone().or_else(stored);
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let (value, expected) =
                ("not shown".to_owned(), "of visible ASCII characters, without spaces or line ends");
            return Err(HubError::Setting { what: "token", value, expected });
        }
        let proxy = settings.proxy.as_deref().map(|address| {
            let expected = "an address, such as `http://host:port`";
            Proxy::new(address).map_err(|_| HubError::Setting { what: "proxy", value: address.to_owned(), expected })
        });
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy.transpose()?)
            .user_agent(concat!("genrec/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        Ok(Self { settings, endpoint, token, agent: config.build().into() })
    }

    /// The files of the repository at the revision asked for, every name checked.
    pub(super) fn listing(&self) -> Result<Listing, HubError> {
        let model = &self.settings.model;
        let revision = names::encode(&self.settings.revision, false);
        let url = format!("{}/api/models/{model}/revision/{revision}", self.endpoint);
        let bytes = self.retrying("the list of files", || {
            let Answer { response, .. } = self.send(Method::Get, &url, "the list of files", 0)?;
            self.accept(&response, None)?;
            let read = response.into_body().into_with_config().limit(MAX_LISTING).read_to_vec();
            read.map_err(|error| Attempt::Cut(Box::new(error)))
        })?;
        let listing: Listing =
            serde_json::from_slice(&bytes).map_err(|source| HubError::Listing { model: model.clone(), source })?;
        if let Some(file) = listing.names().into_iter().find(|name| !names::is_safe(name)) {
            return Err(HubError::UnsafeName { model: model.clone(), file: file.to_owned() });
        }
        if !names::is_hex(&listing.sha, 40) {
            let expected = "a commit of 40 hexadecimal digits; check the endpoint";
            return Err(HubError::Setting { what: "commit that the Hub names", value: listing.sha, expected });
        }
        Ok(listing)
    }

    fn url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, self.settings.model, names::encode(file, true))
    }

    /// Tag and size of a file, without its content.
    pub(super) fn facts(&self, commit: &str, file: &str) -> Result<Facts, HubError> {
        let url = self.url(commit, file);
        self.retrying(file, || {
            let answer = self.send(Method::Head, &url, file, 0)?;
            if answer.linked_etag.is_none() {
                self.accept(&answer.response, Some(file))?;
            }
            let headers = answer.response.headers();
            let own = || text(headers, &header::ETAG).map(str::to_owned);
            let length = || text(headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            let size = if answer.response.status().is_redirection() { None } else { length() };
            Ok(Facts {
                etag: answer.linked_etag.or_else(own).unwrap_or_else(|| format!("{commit}/{file}")),
                size: answer.linked_size.or(size),
            })
        })
    }

    /// A file's content from a byte on. An answer of another status than success is an error but for 416, which says that
    /// there is nothing from that byte on.
    pub(super) fn content(&self, commit: &str, file: &str, from: u64) -> Result<Response<Body>, Attempt> {
        let Answer { response, .. } = self.send(Method::Get, &self.url(commit, file), file, from)?;
        if !(from > 0 && response.status().as_u16() == 416) {
            self.accept(&response, Some(file))?;
        }
        Ok(response)
    }

    /// One request, with its redirects. Only the Hub's own address is shown the token; a request for the facts of a file ends
    /// where the Hub sends it to the large file storage.
    fn send(&self, method: Method, url: &str, file: &str, from: u64) -> Result<Answer, Attempt> {
        let home = origin(&self.endpoint);
        let mut url = url.to_owned();
        let (mut linked_etag, mut linked_size) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = if method == Method::Get { self.agent.get(&url) } else { self.agent.head(&url) };
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url) == home) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| Attempt::Cut(Box::new(error)))?;
            let headers = response.headers();
            let of = |name: &'static str| text(headers, &HeaderName::from_static(name));
            linked_etag = linked_etag.or_else(|| of("x-linked-etag").map(str::to_owned));
            linked_size = linked_size.or_else(|| of("x-linked-size").and_then(|size| size.parse().ok()));
            let next = text(headers, &header::LOCATION).filter(|_| response.status().is_redirection());
            let Some(next) = next.and_then(|location| resolve(&url, location)) else {
                return Ok(Answer { response, linked_etag, linked_size });
            };
            if method == Method::Head && linked_etag.is_some() && origin(&next) != origin(&url) {
                return Ok(Answer { response, linked_etag, linked_size });
            }
            url = next;
        }
        let (model, file) = (self.settings.model.clone(), file.to_owned());
        Err(HubError::Redirects { model, file, redirects: MAX_REDIRECTS + 1 }.into())
    }

    /// Says what is wrong with an answer that is no success; `file` is none for the list of files.
    fn accept(&self, response: &Response<Body>, file: Option<&str>) -> Result<(), Attempt> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let HubDownload { model, revision, .. } = self.settings.clone();
        let code = text(response.headers(), &HeaderName::from_static("x-error-code"));
        let missing = |file: &str| HubError::NoSuchFile {
            model: model.clone(),
            revision: revision.clone(),
            file: file.to_owned(),
        };
        let error = match (status.as_u16(), code, file) {
            (401 | 404, Some("RepoNotFound"), _) | (404, None, None) => {
                HubError::NoSuchRepo { endpoint: self.endpoint.clone(), model, revision }
            }
            (404, Some("RevisionNotFound"), _) => HubError::NoSuchRevision { model, revision },
            (404, _, Some(file)) => missing(file),
            (status @ (401 | 403), _, _) => {
                let file = file.unwrap_or("the list of files").to_owned();
                HubError::Unauthorised { model, file, status, token: self.token.is_some() }
            }
            (status @ (408 | 425 | 429 | 500..), _, _) => return Err(Attempt::Busy(status)),
            (status, _, _) => {
                let file = file.unwrap_or("the list of files").to_owned();
                HubError::Status { model, file, status, tries: 1 }
            }
        };
        Err(error.into())
    }

    /// Tries again, with ever longer waits between, what may go better then.
    pub(super) fn retrying<T>(
        &self,
        file: &str,
        mut attempt: impl FnMut() -> Result<T, Attempt>,
    ) -> Result<T, HubError> {
        let mut tries = 0;
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(Attempt::Refused(error)) => return Err(error),
                Err(failure) => failure,
            };
            tries += 1;
            let (model, file) = (self.settings.model.clone(), file.to_owned());
            let error = match failure {
                Attempt::Busy(status) => HubError::Status { model, file, status, tries },
                Attempt::Cut(source) => HubError::Connection { model, file, tries, source },
                Attempt::Refused(error) => error,
            };
            if tries > self.settings.retries {
                return Err(error);
            }
            tracing::warn!(%error, "trying again");
            std::thread::sleep(self.settings.retry_wait.saturating_mul(1 << (tries - 1).min(16)).min(MAX_WAIT));
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?.as_str().to_ascii_lowercase()))
}

/// Where a redirect from an address leads.
fn resolve(from: &str, location: &str) -> Option<String> {
    let (scheme, authority) = origin(from)?;
    if origin(location).is_some() {
        Some(location.to_owned())
    } else if location.starts_with("//") {
        Some(format!("{scheme}:{location}"))
    } else if location.starts_with('/') {
        Some(format!("{scheme}://{authority}{location}"))
    } else {
        let path = from.split(['?', '#']).next()?;
        Some(format!("{}/{location}", path.rsplit_once('/')?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = "https://hub:1/a/resolve/c/f?x=/y";
        for (location, expected) in [
            ("https://cdn/b?sig=1", "https://cdn/b?sig=1"),
            ("//cdn/b", "https://cdn/b"),
            ("/api/cache/f", "https://hub:1/api/cache/f"),
            ("g", "https://hub:1/a/resolve/c/g"),
        ] {
            assert_eq!(resolve(from, location).as_deref(), Some(expected));
        }
        assert_eq!(origin("HTTPS://Hub:1/a"), origin(from));
        assert_ne!(origin("http://hub:1/a"), origin(from));
        assert_ne!(origin("https://hub:2/a"), origin(from));
        assert_eq!(origin("hub"), None);
    }
}
