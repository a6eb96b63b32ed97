//! Downloads from a server on loopback that answers as the Hub does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use genrec_embed::{
    EmbedError,
    hub::{HubDownload, HubError},
};
use server::{COMMIT, Hub, MODEL};
use tempfile::TempDir;

const LARGE: &str = "model/model.safetensors";
const SMALL: &str = "model/config.json";

/// A repository of a large and a small file, and a download of it that waits for nothing.
fn hub() -> (Hub, TempDir, HubDownload) {
    let hub = Hub::start();
    let large: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    hub.add(LARGE, large, true);
    hub.add(SMALL, r#"{"a": 1}"#, false);
    hub.add("README.md", "not asked for", false);
    let cache = tempfile::tempdir().unwrap();
    let download = HubDownload::new(MODEL)
        .with_endpoint(&hub.address)
        .with_cache_dir(cache.path())
        .with_retries(3, Duration::ZERO);
    (hub, cache, download)
}

fn fetch(download: &HubDownload) -> Result<PathBuf, HubError> {
    download.download_files(&[LARGE], |name| name.starts_with("model/")).map_err(|error| match error {
        EmbedError::Hub(error) => *error,
        other => panic!("{other}"),
    })
}

/// Every file below a directory by its path, links followed; locks left out.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut pending) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_none_or(|extension| extension != "lock") {
                files.insert(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
            }
        }
    }
    files
}

fn partial(hub: &Hub, cache: &TempDir, file: &str) -> PathBuf {
    let hash = hub.state().files[file].hash.clone();
    let blobs = cache.path().join("models--some--model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    blobs.join(format!("{hash}.incomplete"))
}

fn assert_whole(hub: &Hub, dir: &Path) {
    for file in [LARGE, SMALL] {
        assert!(fs::read(dir.join(file)).unwrap() == hub.state().files[file].bytes, "{file}");
    }
}

#[test]
fn files_come_as_they_are_and_once() {
    let (hub, cache, download) = hub();
    hub.add("model/a b#1%.json", "odd", false);
    let dir = fetch(&download).unwrap();
    assert_eq!(dir, cache.path().join("models--some--model/snapshots").join(COMMIT));
    assert_whole(&hub, &dir);
    assert_eq!(fs::read_to_string(dir.join("model/a b#1%.json")).unwrap(), "odd");
    assert!(!dir.join("README.md").exists());
    // What Hugging Face's tools find again.
    let hash = hub.state().files[LARGE].hash.clone();
    assert!(cache.path().join("models--some--model/blobs").join(hash).is_file());
    assert_eq!(fs::read_to_string(cache.path().join("models--some--model/refs/main")).unwrap(), COMMIT);

    assert_eq!(hub.contents().len(), 3);
    let before = tree(cache.path());
    assert_eq!(fetch(&download).unwrap(), dir);
    assert_eq!(hub.contents(), []);
    assert_eq!(tree(cache.path()), before);
}

#[test]
fn an_embedder_is_fetched_without_what_it_does_not_read() {
    let (hub, _cache, download) = hub();
    for file in ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"] {
        hub.add(file, file, file.ends_with("safetensors"));
    }
    let dir = download.clone().with_revision("refs/pr/1").download().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"] {
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), file);
    }
    assert!(!dir.join("README.md").exists() && !dir.join("model").exists());
    hub.state().files.retain(|name, _| name.contains('/'));
    assert!(matches!(download.download(), Err(EmbedError::MissingFile { file: "config.json", .. })));
}

#[test]
fn a_cut_connection_goes_on_from_where_it_was_cut() {
    let (hub, _cache, download) = hub();
    hub.state().cuts = [8, 400_000, 100_000].into();
    assert_whole(&hub, &fetch(&download).unwrap());
    let expected = [
        (SMALL.to_owned(), None),
        (LARGE.to_owned(), None),
        (LARGE.to_owned(), Some("bytes=400000-".to_owned())),
        (LARGE.to_owned(), Some("bytes=500000-".to_owned())),
    ];
    assert_eq!(hub.contents(), expected);
}

#[test]
fn what_one_call_left_the_next_completes() {
    let (hub, cache, mut download) = hub();
    download.retries = 0;
    hub.state().cuts = [8, 300_000].into();
    match fetch(&download).unwrap_err() {
        HubError::Connection { model, file, tries, .. } => {
            assert_eq!((model.as_str(), file.as_str(), tries), (MODEL, LARGE, 1));
        }
        other => panic!("{other}"),
    }
    assert_eq!(fs::metadata(partial(&hub, &cache, LARGE)).unwrap().len(), 300_000);
    assert!(!cache.path().join("models--some--model/snapshots").exists(), "a part of the files is no snapshot");
    hub.contents();
    assert_whole(&hub, &fetch(&download).unwrap());
    assert_eq!(hub.contents(), [(LARGE.to_owned(), Some("bytes=300000-".to_owned()))]);
}

#[test]
fn whatever_a_killed_process_left_ends_in_the_right_file() {
    let whole = {
        let (hub, ..) = hub();
        let state = hub.state();
        state.files[LARGE].bytes.clone()
    };
    let mut damaged = whole[..500_000].to_vec();
    damaged[7] ^= 1;
    let resumed = (LARGE.to_owned(), Some("bytes=500000-".to_owned()));
    let anew = (LARGE.to_owned(), None);
    for (left, asked) in [
        (whole[..500_000].to_vec(), vec![resumed.clone()]),
        (damaged, vec![resumed, anew.clone()]),
        (whole.clone(), vec![]),
        (vec![0; whole.len()], vec![anew.clone()]),
        ([whole.clone(), vec![1]].concat(), vec![anew.clone()]),
        (vec![], vec![anew]),
    ] {
        let (hub, cache, download) = hub();
        fs::write(partial(&hub, &cache, LARGE), left).unwrap();
        assert_whole(&hub, &fetch(&download).unwrap());
        assert_eq!(hub.contents()[1..], asked);
        assert!(!partial(&hub, &cache, LARGE).exists());
    }
}

#[test]
fn a_server_that_ignores_ranges_does_no_harm() {
    let (hub, cache, download) = hub();
    hub.state().ignores_ranges = true;
    fs::write(partial(&hub, &cache, LARGE), vec![9; 1000]).unwrap();
    assert_whole(&hub, &fetch(&download).unwrap());
}

#[test]
fn a_damaged_file_of_the_cache_is_fetched_anew() {
    let (hub, cache, download) = hub();
    let dir = fetch(&download).unwrap();
    fs::write(partial(&hub, &cache, LARGE).with_extension(""), "cut").unwrap();
    fs::remove_file(dir.join(SMALL)).unwrap();
    fs::write(dir.join(SMALL), "changed").unwrap();
    assert_whole(&hub, &fetch(&download).unwrap());
}

#[test]
fn a_wrong_hash_is_an_error_and_leaves_nothing() {
    for file in [LARGE, SMALL] {
        let (hub, cache, download) = hub();
        let told = if file == LARGE { "0".repeat(64) } else { "0".repeat(40) };
        let was = std::mem::replace(&mut hub.state().files.get_mut(file).unwrap().hash, told.clone());
        match fetch(&download).unwrap_err() {
            HubError::WrongHash { model, file: named, expected, got } => {
                assert_eq!((model.as_str(), named.as_str(), expected, got), (MODEL, file, told.clone(), was));
            }
            other => panic!("{other}"),
        }
        let left = tree(cache.path());
        assert!(left.keys().all(|path| !path.contains(&told) && !path.contains("snapshots")), "{:?}", left.keys());
    }
}

#[test]
fn more_bytes_than_the_hub_says_are_refused() {
    let (hub, cache, download) = hub();
    hub.state().files.get_mut(LARGE).unwrap().size = 600_000;
    let error = fetch(&download).unwrap_err();
    assert!(matches!(&error, HubError::WrongSize { file, expected: 600_000, .. } if file == LARGE), "{error}");
    assert!(!partial(&hub, &cache, LARGE).exists());
}

#[test]
fn what_is_not_there_is_named() {
    let (hub, _cache, download) = hub();
    let mut other = download.clone();
    other.model = "some/other".into();
    let error = fetch(&other).unwrap_err();
    assert!(matches!(&error, HubError::NoSuchRepo { model, .. } if model == "some/other"), "{error}");
    let error = fetch(&download.clone().with_revision("v9")).unwrap_err();
    assert!(matches!(&error, HubError::NoSuchRevision { revision, .. } if revision == "v9"), "{error}");
    // Listed, but not there.
    hub.state().listed.push("model/gone.json".into());
    let error = fetch(&download).unwrap_err();
    assert!(matches!(&error, HubError::NoSuchFile { file, .. } if file == "model/gone.json"), "{error}");
    hub.state().files.remove(LARGE);
    hub.state().requests.clear();
    let error = fetch(&download).unwrap_err();
    assert!(matches!(&error, HubError::NoSuchFile { file, .. } if file == LARGE), "{error}");
    assert_eq!(hub.state().requests.len(), 1, "more than the list was asked for");
}

#[test]
fn the_token_is_asked_for_and_shown_to_the_hub_alone() {
    let (hub, cache, download) = hub();
    hub.state().token = Some("secret".into());
    let error = fetch(&download).unwrap_err();
    assert!(matches!(error, HubError::Unauthorised { status: 401, token: false, .. }), "{error}");
    assert!(error.to_string().contains("with_token"));
    let error = fetch(&download.clone().with_token("wrong")).unwrap_err();
    assert!(matches!(error, HubError::Unauthorised { status: 401, token: true, .. }), "{error}");
    assert!(error.to_string().contains("token") && !error.to_string().contains("wrong"));
    assert_eq!(tree(cache.path()).len(), 0);

    hub.state().requests.clear();
    assert_whole(&hub, &fetch(&download.with_token("secret")).unwrap());
    let requests = hub.state().requests.clone();
    assert!(requests.iter().any(|request| request.storage), "the storage was not asked");
    for request in requests {
        assert_eq!(request.token.is_some(), !request.storage, "{request:?}");
    }
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (hub, _cache, download) = hub();
    hub.state().busy = 3;
    assert_whole(&hub, &fetch(&download).unwrap());
    hub.state().busy = 100;
    let error = fetch(&download).unwrap_err();
    assert!(matches!(error, HubError::Status { status: 503, tries: 4, .. }), "{error}");
}

#[test]
fn no_hub_and_circles_are_told_apart() {
    let (hub, _cache, download) = hub();
    hub.state().circles = true;
    let error = fetch(&download).unwrap_err();
    assert!(matches!(&error, HubError::Redirects { file, .. } if file.starts_with("model/")), "{error}");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = fetch(&download.with_endpoint(format!("http://127.0.0.1:{port}"))).unwrap_err();
    assert!(matches!(&error, HubError::Connection { file, tries: 4, .. } if file == "the list of files"), "{error}");
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    for name in ["../x", "model/../../../x", "/etc/x", "model\\..\\x", "C:/x", "model//x"] {
        let (hub, cache, download) = hub();
        hub.state().listed.push(name.into());
        let error = fetch(&download).unwrap_err();
        assert!(matches!(&error, HubError::UnsafeName { file, .. } if file == name), "{error}");
        assert_eq!(tree(cache.path()).len(), 0);
    }
    let (hub, cache, download) = hub();
    hub.state().commit = "../../x".into();
    assert!(matches!(fetch(&download).unwrap_err(), HubError::Setting { .. }));
    hub.state().listing = Some("<html>".into());
    assert!(matches!(fetch(&download).unwrap_err(), HubError::Listing { .. }));
    assert_eq!(tree(cache.path()).len(), 0);
}

#[test]
fn a_branch_that_moved_is_followed() {
    let (hub, _cache, download) = hub();
    let old = fetch(&download).unwrap();
    let commit = COMMIT.chars().rev().collect::<String>();
    hub.state().commit.clone_from(&commit);
    hub.add(SMALL, "new", false);
    hub.contents();
    let new = fetch(&download).unwrap();
    assert!(new.ends_with(commit));
    assert_eq!(hub.contents(), [(SMALL.to_owned(), None)]);
    assert_whole(&hub, &new);
    assert_eq!(fs::read_to_string(old.join(SMALL)).unwrap(), r#"{"a": 1}"#);
}

#[test]
fn two_at_a_time_fetch_once() {
    let (hub, _cache, download) = hub();
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| fetch(&download).unwrap()));
        for one in both {
            assert_whole(&hub, &one.join().unwrap());
        }
    });
    assert_eq!(hub.contents().len(), 2);
}

#[test]
fn progress_rises_to_the_size() {
    let (hub, _cache, download) = hub();
    let seen = Arc::new(Mutex::new(BTreeMap::<String, Vec<u64>>::new()));
    let (log, sizes) = (Arc::clone(&seen), hub.state().files.clone());
    let download = download.with_progress(move |at| {
        assert_eq!((at.size, at.files), (Some(sizes[at.file].size as u64), 2));
        log.lock().unwrap().entry(at.file.to_owned()).or_default().push(at.received);
    });
    fetch(&download).unwrap();
    let seen = seen.lock().unwrap();
    for (file, received) in seen.iter() {
        assert!(received.is_sorted(), "{file}");
        assert_eq!(received.last(), Some(&(hub.state().files[file].size as u64)));
    }
    assert_eq!(seen.len(), 2);
}
