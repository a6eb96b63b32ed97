use ndarray::{Array2, array, s};

use super::*;

/// Ten items in two groups that users keep to; content tells nothing of the groups. The last two nobody takes.
fn shop() -> (Array2<f32>, Vec<Vec<u32>>) {
    let content = Array2::from_shape_fn((10, 3), |(item, column)| ((item * 7 + column * 5) % 11) as f32 / 11.0);
    let sequences =
        (0..40).map(|user| (0..4).map(|at| 4 * (user % 2) + (at * (user / 2 % 3 + 1) + user) % 4).collect());
    (content, sequences.collect())
}

fn config() -> BlendConfig {
    BlendConfig::default().with_behaviour(BehaviourConfig::default().with_dims(2)).with_neighbours(1)
}

fn distance(rows: &Array2<f32>, a: usize, b: usize) -> f32 {
    rows.row(a).iter().zip(rows.row(b)).map(|(x, y)| (x - y).powi(2)).sum()
}

#[test]
fn shares_are_shares_of_the_variance() {
    let (content, sequences) = shop();
    for share in [0.0, 0.3, 1.0] {
        let blend = Blend::fit(content.view(), sequences.clone(), config().with_share(share)).unwrap();
        let rows = blend.rows(content.view()).unwrap();
        let variance = |side: ndarray::ArrayView2<'_, f32>| {
            let mean = side.mean_axis(Axis(0)).unwrap();
            side.outer_iter().map(|row| (&row - &mean).mapv(|value| value * value).sum()).sum::<f32>() / 10.0
        };
        let left = variance(rows.slice(s![.., ..3]));
        assert!((f64::from(left) - (1.0 - share)).abs() < 1e-5, "{left}");
        // Of the eight items that have behaviour.
        let side = rows.slice(s![..8, 3..]).to_owned();
        let right = variance(side.view()) * 10.0 / 8.0;
        assert!((f64::from(right) - share).abs() < 1e-5, "{right}");
    }
}

#[test]
fn items_taken_together_come_near() {
    let (content, sequences) = shop();
    let near = |share| {
        let blend = Blend::fit(content.view(), sequences.clone(), config().with_share(share)).unwrap();
        let rows = blend.rows(content.view()).unwrap();
        let mean = |same: bool| {
            let pairs: Vec<f32> = (0..8)
                .flat_map(|a| (0..a).map(move |b| (a, b)))
                .filter(|(a, b)| (a / 4 == b / 4) == same)
                .map(|(a, b)| distance(&rows, a, b))
                .collect();
            pairs.iter().sum::<f32>() / pairs.len() as f32
        };
        mean(true) / mean(false)
    };
    assert!(near(0.9) < 0.3 * near(0.0), "{} {}", near(0.9), near(0.0));
}

#[test]
fn an_item_without_behaviour_has_that_of_the_nearest_in_content() {
    let (mut content, sequences) = shop();
    let like = content.row(5).to_owned() * 1.01;
    content.row_mut(9).assign(&like);
    let blend = Blend::fit(content.view(), sequences, config()).unwrap();
    let rows = blend.rows(content.view()).unwrap();
    assert_eq!(rows.slice(s![9, 3..]), rows.slice(s![5, 3..]));
    // A new item is treated as one that was there and was taken by nobody.
    let new = blend.new_rows(content.view(), content.slice(s![9..10, ..])).unwrap();
    assert_eq!(new.row(0), rows.row(9));
    assert!(new.iter().all(|value| value.is_finite()));
}

#[test]
fn nobody_took_anything() {
    let content = array![[1.0_f32, 0.0], [0.0, 1.0], [0.5, 0.5]];
    let blend = Blend::fit(content.view(), [[0_u32; 0]; 0], config()).unwrap();
    let rows = blend.rows(content.view()).unwrap();
    assert!(rows.iter().all(|value| value.is_finite()));
    assert!(rows.slice(s![.., 2..]).iter().all(|value| *value == 0.0));
}

#[test]
fn survives_the_disk() {
    let (content, sequences) = shop();
    let blend = Blend::fit(content.view(), sequences, config()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    blend.save(dir.path()).unwrap();
    assert_eq!(Blend::load(dir.path()).unwrap(), blend);

    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(matches!(Blend::load(dir.path()), Err(EmbedError::Array { .. })), "cut at {cut}");
    }
    // Its means belong to more columns than the other's rows have.
    let narrow = Blend::fit(content.view(), [[0, 1]], config().with_behaviour(BehaviourConfig::default().with_dims(1)));
    let narrow = Blend { rows: narrow.unwrap().rows, ..blend.clone() };
    let mut unknown = blend.clone();
    unknown.rows[(3, 0)] = f32::NAN;
    let featureless = Blend { content: Side { mean: Array1::zeros(0), factor: 1.0 }, ..blend.clone() };
    for damaged in [narrow, unknown, featureless] {
        damaged.save(dir.path()).unwrap();
        assert!(matches!(Blend::load(dir.path()), Err(EmbedError::Array { .. })), "{damaged:?}");
    }
    // A file without columns would have any number of rows.
    let mut config = blend.config.clone();
    config.behaviour.dims = 0;
    Blend { config, rows: Array2::zeros((9, 0)), ..blend }.save(dir.path()).unwrap();
    assert!(matches!(Blend::load(dir.path()), Err(EmbedError::Config { .. })));
}

#[test]
fn what_is_wrong_is_said() {
    let (content, sequences) = shop();
    let fit = |config| Blend::fit(content.view(), sequences.clone(), config).unwrap_err().to_string();
    assert!(fit(config().with_share(1.1)).contains("BlendConfig::share is 1.1"));
    assert!(fit(config().with_neighbours(0)).contains("BlendConfig::neighbours is 0"));
    let unknown = Blend::fit(content.view(), [[10_u32]], config()).unwrap_err();
    assert!(matches!(unknown, EmbedError::UnknownItem { item: 10, items: 10 }), "{unknown}");
    let blend = Blend::fit(content.view(), sequences.clone(), config()).unwrap();
    let narrow = Array2::<f32>::zeros((10, 2));
    assert!(matches!(blend.rows(narrow.view()), Err(EmbedError::Shape { .. })));
    assert!(matches!(blend.new_rows(content.view(), narrow.view()), Err(EmbedError::Shape { .. })));
    assert!(matches!(blend.rows(content.slice(s![..9, ..])), Err(EmbedError::Shape { .. })));
}
