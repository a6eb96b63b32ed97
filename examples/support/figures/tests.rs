#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ndarray::{Array2, array};

use super::*;
use crate::{
    categories::Categories,
    fit::Effort,
    measure::Measures,
    methods::{METHODS, Mode},
    report::MethodReport,
};

fn drawn(draw: impl FnOnce(&std::path::Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("figure.svg");
    draw(&path);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn usage_has_a_panel_a_level() {
    let codes = array![[0_u32, 1], [0, 0], [2, 1]];
    let svg = drawn(|path| usage(path, "toy", codes.view(), &[4, 2]).unwrap());
    for text in ["toy", "level 1: 2 of 4 codes used", "level 2: 2 of 2 codes used"] {
        assert!(svg.contains(text), "{text}");
    }
    // More codes than pixels: a point a pixel, not a point a code.
    let large = Array2::from_shape_fn((10, 1), |(i, _)| i as u32);
    assert!(drawn(|path| usage(path, "large", large.view(), &[65_536]).unwrap()).len() < 100_000);
}

#[test]
fn a_mosaic_opens_first_codes() {
    let codes =
        Array2::from_shape_fn((40, 2), |(item, level)| if level == 0 { item as u32 % 2 } else { item as u32 % 5 });
    let categories = Categories::from_names((0..40).map(|item| if item % 2 == 0 { "Soap & Co" } else { "Nails" }));
    let svg = drawn(|path| mosaic(path, "toy", codes.view(), &categories).unwrap());
    for text in ["first code: all 2 in use", "first code 0: 20 items", "all 5 in use", "Soap &amp; Co (50.0 %)"] {
        assert!(svg.contains(text), "{text}");
    }
    let none = Array2::zeros((0, 3));
    assert!(drawn(|path| mosaic(path, "none", none.view(), &categories).unwrap()).contains("none"));
}

#[test]
fn what_no_method_has_is_no_panel() {
    let config = (METHODS[0].config)(Mode::Quick);
    let report = |measures| MethodReport::new("m", &config, (3, 2), measures, Effort::default()).unwrap();
    let plain = report(Measures { collision_rate: 0.25, ..Measures::default() });
    let pure = report(Measures { purity: vec![0.75, 0.9], ..Measures::default() });
    let svg = drawn(|path| comparison(path, "toy", std::slice::from_ref(&plain)).unwrap());
    assert!(svg.contains("25.0 %") && !svg.contains("purity"));
    let svg = drawn(|path| comparison(path, "toy", &[plain, pure]).unwrap());
    assert!(svg.contains("0.750") && svg.contains("purity of the first code") && !svg.contains("reconstruction"));
}

#[test]
fn shares_have_a_bar_a_row_and_a_name_a_colour() {
    let names: Vec<String> = (0..12).map(|name| format!("kind {name}")).collect();
    let rows = [("all & sundry".to_owned(), vec![1.0 / 12.0; 12]), ("one".to_owned(), vec![1.0])];
    let svg = drawn(|path| shares(path, "toy", &names, &rows).unwrap());
    for text in ["toy", "all &amp; sundry", "kind 8", "3 others", "100 %"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("kind 9"));
    assert!(drawn(|path| shares(path, "none", &[], &[]).unwrap()).contains("none"));
}

fn curve(name: &str, ys: &[f64]) -> Curve {
    let point = |(x, &y): (u32, &f64)| Point { x: f64::from(x), y, interval: Some((0.9 * y, 1.1 * y)) };
    Curve { name: name.to_owned(), points: (1..).zip(ys).map(point).collect() }
}

#[test]
fn lines_have_a_legend_and_leave_out_what_is_not_finite() {
    let panel =
        |curves| Panel { title: "toy".to_owned(), setting: "K".to_owned(), decimals: 2, curves, ..Panel::default() };
    let panels = [panel(vec![curve("one", &[0.1, 0.2, 0.3])]), panel(vec![curve("one", &[1.0]), curve("two", &[])])];
    let svg = drawn(|path| lines(path, "figure", &panels).unwrap());
    assert_eq!(
        ["figure", ">\ntoy\n", ">\nK\n", ">\none\n", ">\ntwo\n"].map(|text| svg.matches(text).count()),
        [1, 2, 2, 1, 1]
    );
    assert_eq!(svg.matches("<circle").count(), 4);
    let holes = [panel(vec![curve("one", &[f64::NAN, 0.2, f64::INFINITY])])];
    assert_eq!(drawn(|path| lines(path, "holes", &holes).unwrap()).matches("<circle").count(), 1);
    assert!(drawn(|path| lines(path, "none", &[panel(vec![curve("one", &[])])]).unwrap()).contains("none"));
}

#[test]
fn a_png_has_the_text_of_its_svg() {
    let dir = tempfile::tempdir().unwrap();
    let dark = |title: &str| {
        let path = dir.path().join("figure.svg");
        lines(&path, title, &[]).unwrap();
        png(&path).unwrap();
        let pixels = resvg::tiny_skia::Pixmap::load_png(path.with_extension("png")).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (2 * 84, 2 * 420));
        pixels.pixels().iter().filter(|pixel| pixel.red() < 128).count()
    };
    assert_eq!(dark(""), 0);
    assert!(dark("mm") > dark("i") && dark("i") > 0);
}
