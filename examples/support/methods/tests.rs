#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use super::*;

fn with_file(method: Option<&str>, json: &str) -> Result<QuantizerConfig, BoxError> {
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, json.as_bytes())?;
    let changes = Changes { file: Some(file.path()), ..Changes::default() };
    configure(method.map(find).transpose()?, Mode::Full, &changes)
}

fn message<T: std::fmt::Debug>(result: Result<T, BoxError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn methods_are_valid_and_have_names_of_their_own() {
    let names: BTreeSet<_> = METHODS.iter().map(|method| method.name).collect();
    assert_eq!(names.len(), METHODS.len());
    for method in METHODS {
        assert!(method.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{}", method.name);
        for mode in [Mode::Quick, Mode::Full] {
            (method.config)(mode).validate().unwrap();
        }
    }
}

#[test]
fn a_file_changes_what_it_names() {
    let preset = configure(Some(find("residual_k_means").unwrap()), Mode::Full, &Changes::default()).unwrap();
    assert_eq!(with_file(Some("residual_k_means"), "{}").unwrap(), preset);
    let changed = with_file(Some("residual_k_means"), r#"{"iterations": 3}"#).unwrap();
    assert_eq!(changed, k_means(Mode::Full).with_iterations(3).into());
    let alone = with_file(None, r#"{"type": "residual_k_means", "iterations": 3}"#).unwrap();
    assert_eq!(alone, ResidualKMeansConfig::default().with_iterations(3).into());
}

#[test]
fn arguments_win() {
    let changes = Changes { codebooks: Some(&[8, 4]), seed: Some(7), ..Changes::default() };
    let config = configure(Some(find("rq_vae").unwrap()), Mode::Full, &changes).unwrap();
    assert_eq!(config, RqVaeConfig::default().with_codebook_sizes([8, 4]).with_seed(7).into());
    let none = Changes { codebooks: Some(&[]), ..Changes::default() };
    assert!(message(configure(Some(find("rq_vae").unwrap()), Mode::Full, &none)).contains("codebook_sizes"));
}

#[test]
fn what_is_wrong_is_said_with_the_remedy() {
    let unknown = message(find("rqvae"));
    assert!(METHODS.iter().all(|method| unknown.contains(method.name)), "{unknown}");
    assert!(message(configure(None, Mode::Full, &Changes::default())).contains("--config"));
    let other = message(with_file(Some("rq_vae"), r#"{"type": "residual_k_means"}"#));
    assert!(other.contains("leave --method out") && other.contains("(residual_k_means"), "{other}");
    assert!(message(with_file(None, "{}")).contains("no \"type\""));
    assert!(message(with_file(None, "[]")).contains("JSON object"));
    assert!(message(with_file(None, "{")).contains("not JSON"));
    assert!(message(with_file(None, r#"{"type": "none"}"#)).contains("none"));
    assert!(message(with_file(Some("rq_vae"), r#"{"levels": 3}"#)).contains("levels"));
    assert!(message(with_file(Some("rq_vae"), r#"{"latent_dim": 0}"#)).contains("latent_dim"));
}
