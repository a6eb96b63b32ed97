//! The published counts of the Amazon sets, where the files are at hand.

use std::path::{Path, PathBuf};

use genrec_data::{DataError, LeaveOneOut, ReadOptions, WindowConfig, Windows, readers::neutral};

#[allow(clippy::print_stderr, reason = "a check that is not run must say so")]
fn data() -> Option<PathBuf> {
    let data = std::env::var_os("GENREC_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("GENREC_DATA is not set: the published counts were not checked");
    }
    data
}

struct Published {
    name: &'static str,
    users: usize,
    items: usize,
    interactions: usize,
    mean: f64,
    titles: usize,
    brands: usize,
}

#[test]
fn counts_equal_the_papers() -> Result<(), DataError> {
    let Some(data) = data() else { return Ok(()) };
    for set in [
        Published {
            name: "beauty",
            users: 22_363,
            items: 12_101,
            interactions: 198_502,
            mean: 8.876,
            titles: 12_094,
            brands: 9_991,
        },
        Published {
            name: "sports",
            users: 35_598,
            items: 18_357,
            interactions: 296_337,
            mean: 8.325,
            titles: 18_267,
            brands: 11_020,
        },
        Published {
            name: "toys",
            users: 19_412,
            items: 11_924,
            interactions: 167_597,
            mean: 8.634,
            titles: 11_865,
            brands: 9_508,
        },
    ] {
        check(&data.join(set.name), &set)?;
    }
    Ok(())
}

fn check(directory: &Path, set: &Published) -> Result<(), DataError> {
    let (dataset, report) = neutral::read(directory, &ReadOptions::default())?;
    assert_eq!(dataset.name, set.name);
    assert_eq!(report.records as usize, set.users + set.items);
    let statistics = dataset.statistics();
    assert_eq!(
        (statistics.users, statistics.items, statistics.interactions),
        (set.users, set.items, set.interactions),
        "{}",
        set.name
    );
    assert!((statistics.mean_length - set.mean).abs() < 5e-4, "{statistics:?}");
    assert_eq!((statistics.median_length, statistics.min_length), (6.0, 5));
    let items = dataset.catalogue.items();
    assert_eq!(items.iter().filter(|item| item.title.is_some()).count(), set.titles);
    assert_eq!(items.iter().filter(|item| item.brand.is_some()).count(), set.brands);
    assert!(items.iter().all(|item| !item.categories.is_empty() && item.attributes.contains_key("asin")));
    assert!(items.iter().all(|item| item.title.is_some() != item.attributes.contains_key("text_hint")));
    let entity = |text: &str| ["&amp;", "&quot;", "&#39;", "&reg;"].iter().any(|entity| text.contains(entity));
    let texts =
        items.iter().flat_map(|item| item.title.iter().chain(&item.brand).chain(item.categories.iter().flatten()));
    assert_eq!(texts.filter(|text| entity(text)).count(), 0, "an entity is left");
    let windows = Windows::new(&LeaveOneOut::new(&dataset.sequences), WindowConfig::default())?;
    assert_eq!(windows.len(), set.interactions - 3 * set.users);
    Ok(())
}
