//! A run to the Hub and back: what an export holds, that it opens from a server that answers as the Hub does, and what
//! `transformers` is given of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "the crate of the downloads uses all of it")]
#[path = "../../crates/genrec-embed/tests/hub/server.rs"]
mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use candle_core::Device;
use genrec::{
    Error, Export, History, Recommender,
    artifacts::{self, RunDir},
    data::{Item, Synthetic},
    embed::{
        AnyEmbedder, EmbedError, EmbedderSpec,
        hub::{HubDownload, HubError},
    },
    index::ItemId,
    model::RaggedBatch,
    pipeline::{self, EmbeddingSource, Event, TigerConfig},
};
use genrec_tests::{manifest::root, small_config, small_shop};
use server::{COMMIT, Hub, MODEL};

fn run(dir: &Path, config: &TigerConfig) -> pipeline::Outcome {
    let Synthetic { dataset, .. } = small_shop();
    pipeline::run(&dataset, config, dir, &Device::Cpu, None, false, &mut |_: &Event<'_>| {}).unwrap()
}

/// One run for all tests that only read it.
fn shared_run() -> PathBuf {
    static RUN: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);
    let mut dir = RUN.lock().unwrap();
    let dir = dir.get_or_insert_with(|| {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &small_config());
        dir
    });
    dir.path().to_owned()
}

/// Every file below a directory by its path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut pending) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
            }
        }
    }
    files
}

fn recommend(recommender: &Recommender) -> Vec<Vec<genrec::Recommendation>> {
    let items = [ItemId(3), ItemId(5)];
    let histories = [History { user: Some("someone"), items: &items }, History { user: None, items: &items[..1] }];
    recommender.recommend(&histories, 10).unwrap()
}

fn new_item() -> Item {
    let mut item = Item::default();
    (item.id, item.title) = ("new".into(), Some("something new".into()));
    item
}

/// A server with the files of a directory, those that `.gitattributes` says in the large file storage.
fn serve(dir: &Path) -> Hub {
    let hub = Hub::start();
    for (name, bytes) in files(dir) {
        let large = name.ends_with(".safetensors") || name.ends_with(".jsonl");
        hub.add(&name, bytes, large);
    }
    hub
}

fn download(hub: &Hub, cache: &Path) -> HubDownload {
    HubDownload::new(MODEL).with_endpoint(&hub.address).with_cache_dir(cache).with_retries(2, Duration::ZERO)
}

#[test]
fn a_run_goes_to_the_hub_and_comes_back() {
    let (run, out, cache) = (shared_run(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let export =
        Export::new("A \"shop\": small", "mit").with_repo("owner/shop").with_dataset("owner/data").with_language("en");
    let exported = export.write(&run, out.path()).unwrap();
    let written = files(exported.root());
    for (name, bytes) in &written {
        assert!(artifacts::serves(name) || ["README.md", ".gitattributes"].contains(&name.as_str()), "{name}");
        let place = run.to_string_lossy();
        assert!(
            !bytes.windows(place.len()).any(|part| part == place.as_bytes()),
            "{name} names this machine's {place}"
        );
    }
    let original = files(&run);
    for name in original.keys().filter(|name| artifacts::serves(name)) {
        assert!(written.contains_key(name), "{name} is missing");
    }
    let card = String::from_utf8(written["README.md"].clone()).unwrap();
    for part in [
        "---\nlibrary_name: genrec\nlicense: \"mit\"\n",
        "- name: \"A \\\"shop\\\": small\"",
        "    - type: \"recall@10\"\n      name: \"Recall@10\"\n      value: ",
        "Recommender::from_hub(\"owner/shop\", &Device::Cpu)",
        "| level | codes | used | perplexity |\n|---|---|---|---|\n| 1 | 32 |",
        "the encoder is causal",
    ] {
        assert!(card.contains(part), "{part} is not in the card:\n{card}");
    }

    let hub = serve(exported.root());
    hub.state().cuts = [100, 200].into();
    assert_eq!(exported.verify().unwrap().unsummed, 0);
    let arrived = RunDir::from_hub(&download(&hub, cache.path())).unwrap();
    assert_eq!(arrived.verify().unwrap(), exported.verify().unwrap());
    let mut recommender = Recommender::from_hub(download(&hub, cache.path()), &Device::Cpu).unwrap();
    assert_eq!(recommend(&recommender), recommend(&Recommender::load(&run, &Device::Cpu).unwrap()));
    let new = recommender.add_item(new_item()).unwrap();
    assert_eq!(recommender.seen(new), Some(false));
    let snapshot = cache.path().join("models--some--model/snapshots").join(COMMIT);
    assert!(snapshot.join("run.json").exists() && !snapshot.join("README.md").exists());

    // Items that were added are exported with the others.
    let again = tempfile::tempdir().unwrap();
    let added = tempfile::tempdir().unwrap();
    let copy = export.write(&run, added.path()).unwrap();
    recommender.save_catalogue(copy.root()).unwrap();
    let exported = export.write(copy.root(), again.path()).unwrap();
    assert!(Recommender::load(exported.root(), &Device::Cpu).unwrap().find("new").is_ok());
    assert!(fs::read_to_string(exported.root().join("README.md")).unwrap().contains("Items added after training: 1."));
}

#[test]
fn a_repository_without_a_run_and_a_damaged_one_are_refused() {
    let (out, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exported = Export::new("shop", "mit").write(shared_run(), out.path()).unwrap();
    let hub = serve(exported.root());
    let from_hub = || match Recommender::from_hub(download(&hub, cache.path()), &Device::Cpu).unwrap_err() {
        Error::Embed(error) => match *error {
            EmbedError::Hub(error) => *error,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    };
    hub.state().files.get_mut("model/model.safetensors").unwrap().bytes[100] ^= 1;
    let error = from_hub();
    assert!(matches!(&error, HubError::WrongHash { file, .. } if file == "model/model.safetensors"), "{error}");
    hub.state().files.remove("decode.json");
    let error = from_hub();
    assert!(matches!(&error, HubError::NoSuchFile { file, .. } if file == "decode.json"), "{error}");
}

#[test]
fn a_run_of_an_outside_model_names_it_and_recommends_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let (model, run_dir, out) = (dir.path().join("encoder-of-mine"), dir.path().join("run"), dir.path().join("out"));
    for (name, bytes) in files(&root().join("tests/golden/embed/t5")) {
        let path = model.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let mut config = small_config();
    config.embedder = EmbeddingSource::Text { embedder: EmbedderSpec::SentenceT5 { dir: model.clone() } };
    // To an encoder of random weights all items look alike.
    config.suffix_size = 1024;
    run(&run_dir, &config);
    let before = recommend(&Recommender::load(&run_dir, &Device::Cpu).unwrap());

    let exported = Export::new("shop", "mit").write(&run_dir, &out).unwrap();
    let place = dir.path().to_string_lossy().into_owned();
    for (name, bytes) in files(exported.root()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(&place), "{name} names {place}");
    }
    for file in ["README.md", "run.json", "embedder/config.json"] {
        assert!(fs::read_to_string(out.join(file)).unwrap().contains("encoder-of-mine"), "{file}");
    }
    let mut recommender = Recommender::load(exported.root(), &Device::Cpu).unwrap();
    assert_eq!(recommend(&recommender), before);
    let error = recommender.add_item(new_item()).unwrap_err();
    assert!(matches!(&error, Error::EmbedderElsewhere { model } if model == Path::new("encoder-of-mine")), "{error}");
    assert!(error.to_string().contains("with_embedder"));
    let embedder = AnyEmbedder::load_relocated(exported.embedder(), &model, &Device::Cpu).unwrap();
    assert!(recommender.with_embedder(embedder).add_item(new_item()).is_ok());

    let named =
        Export::new("shop", "mit").with_embedder("owner/encoder").write(&run_dir, dir.path().join("named")).unwrap();
    let reference = AnyEmbedder::outside_model(named.embedder()).unwrap().unwrap();
    assert_eq!(reference.dir, Path::new("owner/encoder"));
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let (run, out) = (shared_run(), tempfile::tempdir().unwrap());
    let export = Export::new("shop", "mit");
    fs::write(out.path().join("mine"), "x").unwrap();
    assert!(matches!(export.write(&run, out.path()), Err(Error::NotEmpty { path }) if path == out.path()));
    let nothing = out.path().join("no-run");
    let empty = out.path().join("out");
    assert!(matches!(export.write(&nothing, &empty), Err(Error::MissingArtifact { .. })));
    assert!(!empty.exists(), "something was written");
    assert!(matches!(Export::new("", "mit").write(&run, &empty), Err(Error::Config { field: "name", .. })));
}

/// An export for `tests/golden/scripts/_load_t5.py`, into the directory `GENREC_EXPORT` where it is set, with the logits of some
/// histories as their Semantic IDs.
#[test]
fn the_model_of_an_export_is_one_of_transformers() {
    let temporary = tempfile::tempdir().unwrap();
    let place =
        std::env::var_os("GENREC_EXPORT").map_or_else(|| temporary.path().to_owned(), PathBuf::from).join("run");
    let mut config = small_config();
    config.model = config.model.with_causal_encoder(false);
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &config);
    let exported = Export::new("shop", "mit").write(dir.path(), &place).unwrap();
    let card = fs::read_to_string(place.join("README.md")).unwrap();
    assert!(card.contains("from_pretrained(\"OWNER/NAME\", subfolder=\"model\")"), "{card}");
    assert!(card.contains("| 2 to 33 | codes of position 1 |"), "{card}");

    let recommender = Recommender::load(exported.root(), &Device::Cpu).unwrap();
    let tokens = |item: u32| {
        let mut tokens = Vec::new();
        recommender.vocab().encode_sid(&recommender.index().sid(ItemId(item)).unwrap(), &mut tokens).unwrap();
        tokens
    };
    let (mut batch, mut sources, mut labels) = (RaggedBatch::new(), Vec::new(), Vec::new());
    for history in [&[0_u32, 1, 2][..], &[7], &[9, 4, 11, 30, 2, 8]] {
        let source: Vec<u32> = history.iter().flat_map(|&item| tokens(item)).collect();
        let target = tokens(history[0] + 1);
        batch.push(&source, &target).unwrap();
        sources.push(source);
        labels.push(target);
    }
    let logits = recommender.model().logits(&batch).unwrap().to_vec3::<f32>().unwrap();
    let case = serde_json::json!({ "sources": sources, "labels": labels, "logits": logits });
    fs::write(place.join("logits.json"), case.to_string()).unwrap();
    if std::env::var_os("GENREC_EXPORT").is_none() {
        eprintln!("NOT RUN: transformers on the export; `python3 tests/golden/make.py --check t5` does that");
    }
    assert!(RunDir::new(&place).model().join("config.json").exists());
}
