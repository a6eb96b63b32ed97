//! Runs that recommend together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use candle_core::Device;
use genrec::{
    Ensemble, Error, History, Recommender,
    data::Item,
    evaluate::{Part, questions},
    index::ItemId,
    model::t5::T5,
    pipeline::{self, Event},
};
use genrec_tests::{small_config, small_shop};

fn member(seed: u64) -> Recommender<T5> {
    let dir = tempfile::tempdir().unwrap();
    let config = small_config().with_seed(seed);
    let quiet = &mut |_: &Event<'_>| {};
    pipeline::run(&small_shop().dataset, &config, dir.path(), &Device::Cpu, None, false, quiet).unwrap().recommender
}

#[test]
fn members_recommend_together() -> genrec::Result<()> {
    let dataset = small_shop().dataset;
    let asked = questions(&dataset.sequences, Part::Test)?;
    let histories: Vec<History<'_>> = asked.iter().take(8).map(|question| question.history).collect();
    let (one, two) = (member(1), member(2));
    let alone = one.searcher().rank(one.model(), &histories, 50, &mut |_, _| {})?;
    let single = Ensemble::new(vec![one])?;
    for (ranked, alone) in single.rank(&histories, 10)?.iter().zip(&alone) {
        let items = |list: &[(ItemId, f32)]| list.iter().take(10).map(|(item, _)| *item).collect::<Vec<_>>();
        assert_eq!(items(ranked), items(&alone.items));
    }
    let both = Ensemble::new(vec![member(1), two])?.with_candidates(20);
    let ranked = both.rank(&histories, 10)?;
    assert!(ranked.iter().all(|list| list.len() == 10 && list.is_sorted_by(|a, b| a.1 >= b.1)));
    assert_ne!(ranked, single.rank(&histories, 10)?);
    let suite = both.evaluate(&asked)?;
    assert_eq!(suite.values("recall@10").map(<[f64]>::len), Some(asked.len()));
    Ok(())
}

#[test]
fn members_of_other_items_are_refused() {
    let none = Ensemble::<T5>::new(Vec::new());
    assert!(matches!(none, Err(Error::Config { field: "members", .. })));
    let mut more = member(1);
    let mut item = Item::default();
    (item.id, item.title) = ("new".into(), Some("something new".into()));
    more.add_item(item).unwrap();
    let uneven = Ensemble::new(vec![member(1), more]);
    assert!(matches!(uneven, Err(Error::Mismatch { what: "items", .. })));
}
