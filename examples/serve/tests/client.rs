//! As little of an HTTP client as tests need, so that they can send what a library would refuse to.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status and code of an error, which must say more than its code.
    pub(super) fn error(&self) -> (u16, String) {
        let value = self.json();
        assert!(value["error"]["message"].as_str().is_some_and(|message| message.len() > 15), "{value}");
        (self.status, value["error"]["code"].as_str().unwrap().to_owned())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends bytes as they are and reads until the server closes; `None` when it closes without a whole answer.
pub(super) fn send(address: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may have answered, and closed, before it has read everything.
    let _ = stream.write_all(bytes);
    read(&mut stream)
}

pub(super) fn read(stream: &mut TcpStream) -> Option<Reply> {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the server neither answers nor closes")
        }
        // A reset after the answer loses nothing of it.
        _ => {}
    }
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (String::from_utf8_lossy(&received[..end]).into_owned(), received[end + 4..].to_vec());
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let reply = Reply { status, head, body };
    let length = reply.header("content-length").and_then(|length| length.parse().ok());
    length.is_none_or(|length: usize| length == reply.body.len()).then_some(reply)
}

pub(super) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

pub(super) const JSON: &str = "content-type: application/json\r\n";

pub(super) fn post_bytes(address: SocketAddr, path: &str, body: &[u8]) -> Reply {
    send(address, &request("POST", path, JSON, body)).unwrap_or_else(|| panic!("no answer to {path}"))
}

pub(super) fn post(address: SocketAddr, path: &str, body: &Value) -> Reply {
    post_bytes(address, path, body.to_string().as_bytes())
}

pub(super) fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, &request("GET", path, "", b"")).unwrap_or_else(|| panic!("no answer to {path}"))
}
