#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ndarray::array;

use super::*;

fn subject() -> Subject {
    let embeddings = checksum(array![[1.0_f32, 2.0]].view());
    Subject { dataset: "toy".into(), embedder: "tfidf".into(), embeddings, mode: Mode::Quick, seed: 42 }
}

fn report(name: &str, config: &QuantizerConfig, collision_rate: f64) -> MethodReport {
    let measures = Measures { collision_rate, codes_used: vec![3, 2], ..Measures::default() };
    MethodReport::new(name, config, (10, 4), measures, Effort::default()).unwrap()
}

#[test]
fn an_interrupted_comparison_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let mut comparison = Comparison::open(&path, subject()).unwrap();
    let (first, second) = (&METHODS[0], &METHODS[1]);
    let (a, b) = ((first.config)(Mode::Quick), (second.config)(Mode::Quick));
    comparison.put(report(second.name, &b, 0.2), &path).unwrap();
    comparison.put(report(first.name, &a, 0.1), &path).unwrap();
    comparison.put(report(second.name, &b, 0.3), &path).unwrap();

    let again = Comparison::open(&path, subject()).unwrap();
    assert_eq!(again, comparison);
    let names: Vec<&str> = again.methods.iter().map(|method| method.name.as_str()).collect();
    assert_eq!(names, [first.name, second.name]);
    assert_eq!(again.find(second.name, &b).unwrap().measures.collision_rate, 0.3);
    assert!(again.find(second.name, &(second.config)(Mode::Full)).is_none(), "other settings are another row");

    for other in [Subject { mode: Mode::Full, ..subject() }, Subject { seed: 7, ..subject() }] {
        assert!(Comparison::open(&path, other).unwrap_err().to_string().contains("another --out"));
    }
    std::fs::write(&path, "{}").unwrap();
    assert!(Comparison::open(&path, subject()).unwrap_err().to_string().contains("another --out"));
}

#[test]
fn the_file_has_the_fields_of_a_row_side_by_side() {
    let config = (METHODS[0].config)(Mode::Quick);
    let json = serde_json::to_value(report("m", &config, 0.5)).unwrap();
    assert_eq!(json["collision_rate"], 0.5);
    assert_eq!(json["type"], type_of(&config));
    assert_eq!(json["config"]["type"], json["type"]);
    assert_eq!(json["seconds"], 0.0);
}

#[test]
fn embeddings_of_another_shape_have_another_checksum() {
    let rows = array![[1.0_f32, 2.0, 3.0, 4.0]];
    let square = rows.clone().into_shape_with_order((2, 2)).unwrap();
    assert_ne!(checksum(rows.view()), checksum(square.view()));
}

#[test]
fn what_was_not_measured_is_a_dash() {
    let table = methods_table(&[report("m", &(METHODS[0].config)(Mode::Quick), 0.5)]).to_string();
    assert!(table.contains("3/2") && table.contains("50.00 %") && table.contains(" - "), "{table}");
}
