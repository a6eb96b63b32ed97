//! A server on loopback that answers as the Hub does: a list of files, redirects within itself for files in git, to another
//! address for those in the large file storage, parts of files, codes of errors. It can be told to misbehave.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const MODEL: &str = "some/model";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) bytes: Vec<u8>,
    /// Whether it is in the large file storage.
    pub(crate) large: bool,
    /// Hash and size that the server tells, true ones at first.
    pub(crate) hash: String,
    pub(crate) size: usize,
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
    /// Whether it came to the large file storage.
    pub(crate) storage: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Entry>,
    /// Names that are listed beside those of the files.
    pub(crate) listed: Vec<String>,
    pub(crate) commit: String,
    /// The token without which nothing is told.
    pub(crate) token: Option<String>,
    /// Of the contents that are sent next: after how many bytes the connection is cut.
    pub(crate) cuts: VecDeque<usize>,
    /// So many further requests are answered by 503.
    pub(crate) busy: u32,
    /// Sends whole files, whatever part is asked for.
    pub(crate) ignores_ranges: bool,
    /// Redirects every file to itself.
    pub(crate) circles: bool,
    /// Answers this in the place of the list of files.
    pub(crate) listing: Option<String>,
    pub(crate) requests: Vec<Request>,
}

/// The server; its threads end with the test's process.
pub(crate) struct Hub {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State { commit: COMMIT.to_owned(), ..State::default() }));
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, storage) = (listen(), listen());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (address, storage_address) = (address(&hub), address(&storage));
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let (state, storage_address) = (Arc::clone(&state), storage_address.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, storage_address) = (Arc::clone(&state), storage_address.clone());
                    std::thread::spawn(move || {
                        let _ = serve(stream, &state, is_storage, &storage_address);
                    });
                }
            });
        }
        Self { address, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn add(&self, name: &str, bytes: impl Into<Vec<u8>>, large: bool) {
        let bytes = bytes.into();
        let hash = if large {
            hex(&Sha256::digest(&bytes))
        } else {
            hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(&bytes).finalize())
        };
        let size = bytes.len();
        self.state().files.insert(name.to_owned(), Entry { bytes, large, hash, size });
    }

    /// What was asked for since the last call: ranges of contents, by name, in order.
    pub(crate) fn contents(&self) -> Vec<(String, Option<String>)> {
        let asked = std::mem::take(&mut self.state().requests);
        let content = |request: &Request| request.method == "GET" && request.path.starts_with("/content/");
        asked
            .into_iter()
            .filter(content)
            .map(|request| (request.path["/content/".len()..].to_owned(), request.range))
            .collect()
    }
}

fn decode(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: Option<u8>| char::from(digit.unwrap()).to_digit(16).unwrap() as u8;
        bytes.push(if byte == b'%' { 16 * hex(rest.next()) + hex(rest.next()) } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}

fn encode(name: &str) -> String {
    name.replace('%', "%25").replace(' ', "%20").replace('#', "%23")
}

fn read(stream: &TcpStream, storage: bool) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = decode(words.next().unwrap_or_default().split('?').next().unwrap_or_default());
    let (mut range, mut token) = (None, None);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.trim().to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => token = Some(value.trim().to_owned()),
            Some(_) => {}
            None => return Ok(Request { method, path, range, token, storage }),
        }
    }
}

/// Status with headers, and content.
type Answer = (String, Vec<u8>);

fn serve(mut stream: TcpStream, state: &Mutex<State>, storage: bool, storage_address: &str) -> std::io::Result<()> {
    let request = read(&stream, storage)?;
    let ((head, body), cut) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let answer = answer(&mut state, &request, storage_address);
        let content = request.method == "GET" && request.path.starts_with("/content/");
        (answer, content.then(|| state.cuts.pop_front()).flatten())
    };
    let length =
        if head.contains("Content-Length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "HTTP/1.1 {head}{length}Connection: close\r\n\r\n")?;
    if request.method == "GET" {
        let sent = cut.unwrap_or(body.len()).min(body.len());
        stream.write_all(&body[..sent])?;
    }
    stream.flush()?;
    stream.shutdown(Shutdown::Write)
}

fn plain(status: &str) -> Answer {
    (format!("{status}\r\n"), Vec::new())
}

fn answer(state: &mut State, request: &Request, storage_address: &str) -> Answer {
    if state.busy > 0 {
        state.busy -= 1;
        return plain("503 Service Unavailable");
    }
    if request.storage {
        return content(state, request);
    }
    if let Some(token) = &state.token
        && request.token.as_deref() != Some(format!("Bearer {token}").as_str())
    {
        return plain("401 Unauthorized");
    }
    if let Some(rest) = request.path.strip_prefix("/api/models/") {
        return match rest.strip_prefix(MODEL).map(|rest| rest.strip_prefix("/revision/").unwrap_or_default()) {
            None => plain("404 Not Found\r\nX-Error-Code: RepoNotFound"),
            Some("main" | "refs/pr/1") => ("200 OK\r\n".to_owned(), listing(state)),
            Some(_) => plain("404 Not Found\r\nX-Error-Code: RevisionNotFound"),
        };
    }
    if request.path.starts_with("/content/") {
        return content(state, request);
    }
    let prefix = format!("/{MODEL}/resolve/{}/", state.commit);
    let name = request.path.strip_prefix(&prefix).unwrap_or_default();
    match state.files.get(name) {
        _ if state.circles => plain(&format!("307 Temporary Redirect\r\nLocation: {prefix}{}", encode(name))),
        None => plain("404 Not Found\r\nX-Error-Code: EntryNotFound"),
        Some(entry) if entry.large => plain(&format!(
            "302 Found\r\nLocation: {storage_address}/content/{}?signature=x\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\nX-Repo-Commit: {}",
            encode(name),
            entry.hash,
            entry.size,
            state.commit
        )),
        Some(_) => plain(&format!("307 Temporary Redirect\r\nLocation: /content/{}", encode(name))),
    }
}

fn listing(state: &State) -> Vec<u8> {
    let names = state.files.keys().chain(&state.listed);
    let siblings: Vec<_> = names.map(|name| serde_json::json!({ "rfilename": name, "more": 1 })).collect();
    let list = serde_json::json!({ "siblings": siblings, "sha": state.commit, "private": false }).to_string();
    state.listing.clone().unwrap_or(list).into_bytes()
}

fn content(state: &State, request: &Request) -> Answer {
    let Some(entry) = request.path.strip_prefix("/content/").and_then(|name| state.files.get(name)) else {
        return plain("404 Not Found");
    };
    // The storage has tags of its own.
    let etag = if entry.large { "\"anything\"" } else { &format!("W/\"{}\"", entry.hash) };
    let total = entry.bytes.len();
    if request.method == "HEAD" {
        return plain(&format!("200 OK\r\nETag: {etag}\r\nContent-Length: {}", entry.size));
    }
    let from = request.range.as_deref().filter(|_| !state.ignores_ranges);
    let from = from.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        None => (format!("200 OK\r\nETag: {etag}\r\n"), entry.bytes.clone()),
        Some(from) if from >= total => plain(&format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{total}")),
        Some(from) => (
            format!("206 Partial Content\r\nETag: {etag}\r\nContent-Range: bytes {from}-{}/{total}\r\n", total - 1),
            entry.bytes[from..].to_vec(),
        ),
    }
}
