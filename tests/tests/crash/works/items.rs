//! Items are added to a run.

use std::path::Path;

use candle_core::Device;
use genrec::{Recommender, artifacts::RunDir, data::Item};
use genrec_tests::small_shop;

use super::{BoxError, Work, index, run};

pub(crate) const ITEMS: Work = Work {
    prepare: run::finish,
    reader: |root| index::keeps_reading(&root.join("index")),
    is_timed: run::is_timed,
    ..Work::new("items", add, is_done)
};

fn add(root: &Path) -> Result<(), BoxError> {
    let mut recommender = Recommender::load(root, &Device::Cpu)?;
    for id in ["new", "newer"] {
        if recommender.find(id).is_err() {
            recommender.add_item(Item::new(id))?;
        }
    }
    Ok(recommender.save_catalogue(root)?)
}

fn is_done(root: &Path) -> bool {
    let recommender = Recommender::load(root, &Device::Cpu).unwrap();
    let added = recommender.catalogue().len() - small_shop().dataset.catalogue.len();
    assert!(added == 0 || added == 2, "{added}");
    assert_eq!(recommender.find("newer").is_ok(), added == 2);
    RunDir::new(root).verify().unwrap();
    added == 2
}
