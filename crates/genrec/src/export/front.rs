//! The front matter of a model card: what the Hub reads.

use serde::Serialize;

use super::Export;
use crate::pipeline::Report;

/// Tags that every export has.
const TAGS: [&str; 6] =
    ["recommendation", "generative-recommendation", "semantic-ids", "sequential-recommendation", "tiger", "t5"];

/// YAML between its two lines of dashes. No `pipeline_tag`: the Hub has none for recommending.
pub(super) fn front_matter(export: &Export, report: &Report) -> String {
    let mut lines =
        vec!["---".to_owned(), "library_name: genrec".to_owned(), format!("license: {}", text(&export.license))];
    let mut list = |key: &str, values: &mut dyn Iterator<Item = &str>| {
        let values: Vec<_> = values.map(|value| format!("- {}", text(value))).collect();
        if !values.is_empty() {
            lines.push(format!("{key}:"));
            lines.extend(values);
        }
    };
    list("language", &mut export.languages.iter().map(String::as_str));
    let own = export.tags.iter().map(String::as_str).filter(|tag| !TAGS.contains(tag));
    list("tags", &mut TAGS.into_iter().chain(own));
    list("datasets", &mut export.datasets.iter().map(String::as_str));
    let metrics: Vec<_> = report.test.iter().filter(|(_, value)| value.is_finite()).collect();
    if !metrics.is_empty() {
        let dataset = &report.dataset.name;
        lines.push(format!("model-index:\n- name: {}\n  results:", text(&export.name)));
        lines.push("  - task:\n      type: recommendation\n      name: Sequential recommendation".to_owned());
        let on_the_hub = export.datasets.first().unwrap_or(dataset);
        lines.push(format!(
            "    dataset:\n      type: {}\n      name: {}\n      split: test\n    metrics:",
            text(on_the_hub),
            text(dataset)
        ));
        for (name, value) in metrics {
            lines.push(format!(
                "    - type: {}\n      name: {}\n      value: {value}",
                text(name),
                text(&metric_name(name))
            ));
        }
    }
    lines.push("---\n".to_owned());
    lines.join("\n")
}

/// A string of YAML: one of JSON is one.
fn text(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// `Recall@10` of `recall@10`.
pub(super) fn metric_name(metric: &str) -> String {
    let (name, cut_off) = metric.split_once('@').map_or((metric, String::new()), |(name, k)| (name, format!("@{k}")));
    let name = match name {
        "ndcg" | "mrr" | "map" => name.to_uppercase(),
        other => {
            let words = other.replace('_', " ");
            let mut letters = words.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    };
    name + &cut_off
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_called_as_people_call_them() {
        for (metric, name) in
            [("recall@10", "Recall@10"), ("ndcg@5", "NDCG@5"), ("mrr", "MRR"), ("invalid_rate@10", "Invalid rate@10")]
        {
            assert_eq!(metric_name(metric), name);
        }
    }

    #[test]
    fn whatever_is_in_a_name_stays_in_it() {
        assert_eq!(text("a: \"b\" # c"), r#""a: \"b\" # c""#);
    }
}
