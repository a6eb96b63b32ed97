use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
};

use super::*;

#[test]
fn only_what_an_embedder_reads_is_wanted() {
    let names = [
        "README.md",
        "config.json",
        "model.safetensors",
        "openvino/model.xml",
        "pytorch_model.bin",
        "rust_model.ot",
        "tokenizer.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
        "3_Dense/model.safetensors",
        "3_Dense/pytorch_model.bin",
        "onnx/model.onnx",
    ];
    let expected = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
        "3_Dense/model.safetensors",
    ];
    assert_eq!(wanted(&names), expected);
    let sharded = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "original/params.json"];
    assert_eq!(wanted(&sharded), sharded[..2]);
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Answers like the Hub for one repository, with each file's name as its content.
fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.trim().to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let (status, body) = if path.starts_with("/api/models/some/model/revision/v1") {
        let files = ["config.json", "tokenizer.json", "model.safetensors", "README.md", "1_Pooling/config.json"];
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({ "rfilename": file })).collect();
        ("200 OK", serde_json::json!({ "siblings": siblings, "sha": COMMIT }).to_string())
    } else if let Some(file) = path.strip_prefix(&format!("/some/model/resolve/{COMMIT}/")) {
        ("206 Partial Content", file.to_owned())
    } else {
        ("404 Not Found", String::new())
    };
    let total = body.len();
    let body = match range.as_deref() {
        Some("bytes=0-0") if !body.is_empty() => &body[..1],
        _ => body.as_str(),
    };
    let etag: String = path.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes 0-{}/{total}\r\nETag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
        body.len().saturating_sub(1),
    )
}

#[test]
fn a_model_is_fetched_from_one_commit() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let _ = answer(stream);
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let download = HubDownload::new("some/model").with_endpoint(&address).with_cache_dir(cache.path());
    let dir = download.clone().with_revision("v1").download().unwrap();
    assert!(dir.ends_with(COMMIT));
    for file in ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"] {
        assert_eq!(std::fs::read_to_string(dir.join(file)).unwrap(), file);
    }
    assert!(!dir.join("README.md").exists());
    let error = download.with_revision("v2").with_token("secret");
    assert!(!format!("{error:?}").contains("secret"));
    assert!(matches!(error.download(), Err(EmbedError::Hub { file, .. }) if file == "the list of files"));
}
