//! Semantic IDs of content and behaviour, through the whole pipeline.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

use candle_core::Device;
use genrec::{
    Error, History, Recommender,
    data::{Item, LeaveOneOut},
    embed::behaviour::{BehaviourConfig, BlendConfig},
    index::ItemId,
    pipeline::{self, Event, TigerConfig},
};
use genrec_tests::{small_config, small_shop};
use ndarray::Array1;

fn config() -> TigerConfig {
    let blend = BlendConfig::default().with_behaviour(BehaviourConfig::default().with_dims(8));
    small_config().with_blend(Some(blend))
}

fn run(dir: &Path, config: &TigerConfig, resume: bool) -> genrec::Result<pipeline::Outcome> {
    pipeline::run(&small_shop().dataset, config, dir, &Device::Cpu, None, resume, &mut |_: &Event<'_>| {})
}

fn item(id: &str, title: &str) -> Item {
    let mut item = Item::default();
    (item.id, item.title) = (id.to_owned(), Some(title.to_owned()));
    item
}

#[test]
fn a_run_keeps_its_blend_and_new_items_pass_through_it() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut outcome = run(dir.path(), &config(), false)?;
    for part in ["behaviour/config.json", "behaviour/model.safetensors"] {
        assert!(dir.path().join(part).exists(), "{part} is missing");
    }
    // Other codes than those of content alone, from the same content.
    let plain = tempfile::tempdir().unwrap();
    run(plain.path(), &small_config(), false)?;
    let read = |dir: &Path, part| fs::read(dir.join(part)).unwrap();
    assert_eq!(read(dir.path(), "embeddings.safetensors"), read(plain.path(), "embeddings.safetensors"));
    assert_ne!(read(dir.path(), "index/index.safetensors"), read(plain.path(), "index/index.safetensors"));

    let mut opened = Recommender::load(dir.path(), &Device::Cpu)?;
    let new = item("new", "something new");
    let [kept, reopened] = [&mut outcome.recommender, &mut opened].map(|recommender| {
        let row = recommender.add_item(new.clone()).unwrap();
        recommender.index().sid(row).unwrap().to_vec()
    });
    assert_eq!(kept, reopened);
    let history = History { user: None, items: &[ItemId(3), ItemId(14)] };
    assert_eq!(opened.recommend(&[history], 5)?[0].len(), 5);

    // The embedding that is asked for is that of content.
    let narrow = opened.add_item_with_embedding(item("other", "x"), Array1::zeros(3).view());
    assert!(matches!(narrow, Err(Error::EmbeddingDim { got: 3, .. })), "{narrow:?}");
    Ok(())
}

#[test]
fn a_copy_of_an_item_that_nobody_took_has_its_codes() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let outcome = run(dir.path(), &config(), false)?;
    let dataset = small_shop().dataset;
    let split = LeaveOneOut::new(&dataset.sequences);
    let trained = |item| (0..dataset.sequences.len()).any(|user| split.train(user).contains(&item));
    let untaken = (0..dataset.catalogue.len() as u32).map(ItemId).find(|&item| !trained(item)).unwrap();
    let mut recommender = outcome.recommender;
    let mut copy = dataset.catalogue.get(untaken).unwrap().clone();
    copy.id = "copy".into();
    let row = recommender.add_item(copy)?;
    let codes = |item| recommender.index().sid(item).unwrap().to_vec();
    let levels = recommender.index().layout().levels();
    assert_eq!(codes(row)[..levels], codes(untaken)[..levels]);
    Ok(())
}

#[test]
fn a_run_whose_blend_was_cut_short_makes_it_again() -> genrec::Result<()> {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &config(), false)?;
    let path = dir.path().join("behaviour/config.json");
    let (whole, index) = (fs::read(&path).unwrap(), fs::read(dir.path().join("index/index.safetensors")).unwrap());
    for part in ["behaviour/config.json", "index/index.json"] {
        fs::remove_file(dir.path().join(part)).unwrap();
    }
    run(dir.path(), &config(), true)?;
    assert_eq!(whole, fs::read(&path).unwrap());
    assert_eq!(index, fs::read(dir.path().join("index/index.safetensors")).unwrap());
    Ok(())
}
