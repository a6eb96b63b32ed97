use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Interaction;

fn log(rows: &[(&str, &str, Option<i64>, Option<f64>)]) -> InteractionLog {
    let mut log = InteractionLog::new();
    for &(user, item, timestamp, rating) in rows {
        log.push(Interaction { user, item, timestamp, rating }).unwrap();
    }
    log
}

fn ids(dataset: &Dataset, user: usize) -> Vec<&str> {
    let items = dataset.sequences.items(user).unwrap();
    items.iter().map(|&i| dataset.catalogue.get(i).unwrap().id.as_str()).collect()
}

#[test]
fn time_and_ties() {
    let log = log(&[
        ("u", "d", Some(2), None),
        ("v", "x", Some(1), None),
        ("u", "b", Some(1), None),
        ("u", "c", Some(2), None),
        ("u", "a", Some(2), None),
        ("u", "z", None, None),
    ]);
    let open = Prepare::default().with_k_core(1, 1);
    assert_eq!(ids(&open.run("t", &log, vec![]).unwrap(), 0), ["z", "b", "d", "c", "a"]);
    let by_id = open.clone().with_ties(Ties::ByItemId);
    assert_eq!(ids(&by_id.run("t", &log, vec![]).unwrap(), 0), ["z", "b", "a", "c", "d"]);
    let mut orders = HashSet::new();
    for seed in 0..40 {
        let shuffled = open.clone().with_ties(Ties::Shuffled { seed });
        let dataset = shuffled.run("t", &log, vec![]).unwrap();
        assert_eq!(ids(&dataset, 0)[..2], ["z", "b"]);
        assert_eq!(dataset, shuffled.run("t", &log, vec![]).unwrap());
        orders.insert(ids(&dataset, 0).join(""));
    }
    assert_eq!(orders.len(), 6, "all orders of three tied items: {orders:?}");
}

#[test]
fn repeats_and_ratings() {
    let log = log(&[
        ("u", "a", Some(1), Some(5.0)),
        ("u", "b", Some(2), Some(2.0)),
        ("u", "a", Some(3), Some(4.0)),
        ("u", "c", Some(4), None),
    ]);
    let open = Prepare::default().with_k_core(1, 1);
    let order = |prepare: Prepare| ids(&prepare.run("t", &log, vec![]).unwrap(), 0).join("");
    assert_eq!(order(open.clone()), "abc");
    assert_eq!(order(open.clone().with_duplicates(Duplicates::KeepLast)), "bac");
    assert_eq!(order(open.clone().with_duplicates(Duplicates::KeepAll)), "abac");
    assert_eq!(order(open.clone().with_min_rating(Some(4.0))), "ac");
    assert!(matches!(open.with_min_rating(Some(f64::NAN)).run("t", &log, vec![]), Err(DataError::Config { .. })));
    let error = Prepare::default().run("t", &log, vec![]).unwrap_err();
    assert!(matches!(error, DataError::NothingLeft { read: 4, .. }), "{error}");
}

#[test]
fn known_items_are_joined() {
    let log = log(&[("u", "a", None, None), ("u", "b", None, None)]);
    let items = vec![
        Item::new("b").with_title("first"),
        Item::new("b").with_title("second"),
        Item::new("unseen").with_title("ignored"),
    ];
    let dataset = Prepare::default().with_k_core(1, 1).run("t", &log, items).unwrap();
    assert_eq!(dataset.catalogue.items(), [Item::new("a"), Item::new("b").with_title("first")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The k-core is the largest part in which everyone has enough: all of it has, and removing one by one in any
    /// order reaches the same part.
    #[test]
    fn core_is_the_fixpoint(pairs in proptest::collection::vec((0u8..8, 0u8..8), 0..80), user_core in 1usize..5, item_core in 1usize..5) {
        let mut log = InteractionLog::new();
        for (user, item) in &pairs {
            log.push(Interaction { user: &user.to_string(), item: &item.to_string(), timestamp: None, rating: None }).unwrap();
        }
        let mut left: Vec<(u8, u8)> = pairs.clone();
        loop {
            let mut users: BTreeMap<u8, usize> = BTreeMap::new();
            let mut items: BTreeMap<u8, usize> = BTreeMap::new();
            for (user, item) in &left {
                *users.entry(*user).or_default() += 1;
                *items.entry(*item).or_default() += 1;
            }
            if let Some((user, _)) = users.iter().find(|(_, n)| **n < user_core) {
                left.retain(|(u, _)| u != user);
            } else if let Some((item, _)) = items.iter().find(|(_, n)| **n < item_core) {
                left.retain(|(_, i)| i != item);
            } else {
                break;
            }
        }
        let prepare = Prepare::default().with_k_core(user_core, item_core).with_duplicates(Duplicates::KeepAll);
        match prepare.run("t", &log, vec![]) {
            Err(DataError::NothingLeft { .. }) => prop_assert!(left.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
            Ok(dataset) => {
                let mut got = Vec::new();
                for (i, (user, _)) in dataset.sequences.iter().enumerate() {
                    got.extend(ids(&dataset, i).into_iter().map(|item| (user.parse::<u8>().unwrap(), item.parse::<u8>().unwrap())));
                }
                got.sort_unstable();
                left.sort_unstable();
                prop_assert_eq!(got, left);
            }
        }
    }
}
