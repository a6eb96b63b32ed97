//! Whole servers over a tiny run, asked over their sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod browser;
mod changes;
mod client;
mod faults;
mod limits;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
    thread::JoinHandle,
};

use candle_core::Device;
use clap::Parser;
use genrec::{
    Recommender,
    data::SyntheticConfig,
    pipeline::{self, TigerConfig},
    quantize::{QuantizerConfig, ResidualKMeansConfig},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{options::Options, server::serve, state::State};
use client::{Reply, get, post};

/// A directory for as long as this process lives. Nothing is dropped at its end, so that those of others that have ended are removed
/// here.
fn directory() -> PathBuf {
    let of = |process: u32| std::env::temp_dir().join(format!("genrec-serve-test-{process}"));
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("genrec-serve-test-")?.parse::<u32>().ok());
        let Some(process) = process else { continue };
        let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        let lives = match Path::new("/proc/self").exists() {
            true => Path::new(&format!("/proc/{process}")).exists(),
            false => age.is_none_or(|age| age.as_secs() < 3600),
        };
        if !lives || process == std::process::id() {
            let _ = fs::remove_dir_all(of(process));
        }
    }
    let own = of(std::process::id());
    fs::create_dir(&own).unwrap();
    own
}

/// A run of a hundred and some users, made once; its embedder is TF-IDF.
fn trained() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let dataset = SyntheticConfig::default().with_users(120).with_seed(3).generate().unwrap().dataset;
        let quantizer = ResidualKMeansConfig::default().with_codebook_sizes([16, 16]);
        let mut config =
            TigerConfig::quickstart().with_seed(4).with_quantizer(QuantizerConfig::ResidualKMeans(quantizer));
        config.model = config.model.with_layers(1, 1).with_d_model(16).with_heads(2, 8).with_d_ff(32);
        config.train.epochs = Some(2);
        let dir = directory();
        pipeline::run(&dataset, &config, &dir, &Device::Cpu, None, false, &mut |_: &pipeline::Event<'_>| {}).unwrap();
        let ids: Vec<&str> = dataset.catalogue.items().iter().map(|item| item.id.as_str()).collect();
        let line = |(user, items): (&str, &[genrec::index::ItemId])| {
            let items: Vec<&str> = items.iter().map(|item| ids[item.index()]).collect();
            format!("{user} {}\n", items.join(" "))
        };
        fs::write(dir.join("sequences.txt"), dataset.sequences.iter().map(line).collect::<String>()).unwrap();
        dir
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(fs::copy(&path, &target).is_ok()),
        }
    }
}

/// A server over a copy of the run.
struct Server {
    dir: tempfile::TempDir,
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<JoinHandle<bool>>,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(trained(), dir.path());
        let run = dir.path().to_str().unwrap();
        let options = Options::parse_from(["serve", "--run", run, "--listen", "127.0.0.1:0"].iter().chain(more));
        let state = Arc::new(State::open(options).unwrap());
        let ((stop, stopped), (told, address)) = (oneshot::channel(), mpsc::channel());
        let served = Arc::clone(&state);
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(served.options.listen).await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                serve(served, listener, async { drop(stopped.await) }).await
            })
        });
        Self { dir, address: address.recv().unwrap(), state, stop: Some(stop), ended: Some(ended) }
    }

    fn recommender(&self) -> Recommender {
        Recommender::load(self.dir.path(), &Device::Cpu).unwrap()
    }

    fn recommend(&self, body: &Value) -> Reply {
        post(self.address, "/recommend", body)
    }

    /// Ends the server and says whether all requests were answered in time.
    fn end(&mut self) -> bool {
        self.begin_to_end();
        self.ended.take().is_none_or(|thread| thread.join().unwrap())
    }

    fn begin_to_end(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap();
        }
    }

    /// The value of a metric.
    fn metric(&self, name: &str) -> f64 {
        let text = get(self.address, "/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no `{name}` in {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for what another thread is about to do.
fn until(what: &str, happened: impl Fn() -> bool) {
    for _ in 0..3000 {
        if happened() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never happened: {what}");
}

/// Ids and scores of the lists of an answer.
fn lists(reply: &Reply) -> Vec<Vec<(String, f32)>> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let value = reply.json();
    let list = |list: &Value| {
        let found =
            |found: &Value| (found["item"]["id"].as_str().unwrap().to_owned(), found["score"].as_f64().unwrap() as f32);
        list.as_array().unwrap().iter().map(found).collect()
    };
    value["recommendations"].as_array().unwrap().iter().map(list).collect()
}

fn asked(history: &[&str]) -> Value {
    json!({ "history": history })
}
