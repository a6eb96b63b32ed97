//! The text of a model card.

use std::fmt::Write;

use genrec_embed::OutsideModel;
use genrec_model::t5::T5Config;
use sid_index::SidVocab;

use super::{
    Export,
    front::{front_matter, metric_name},
};
use crate::{
    Error, Result,
    pipeline::{Manifest, Report},
};

/// How a run is opened; compiled with the documentation tests.
const USAGE: &str = include_str!("usage.md");
/// What stands for the repository where nobody has said which.
const REPO: &str = "OWNER/NAME";

/// What a model card is made of.
pub(super) struct Card<'a> {
    pub(super) export: &'a Export,
    pub(super) manifest: &'a Manifest,
    pub(super) report: &'a Report,
    pub(super) items: usize,
    pub(super) vocab: &'a SidVocab,
    pub(super) model: &'a T5Config,
    pub(super) embedder: Option<&'a OutsideModel>,
}

impl Card<'_> {
    /// `README.md`.
    pub(super) fn text(&self) -> Result<String> {
        let parts = [
            front_matter(self.export, self.report),
            self.head(),
            self.data(),
            self.results(),
            self.model(),
            self.semantic_ids()?,
            self.rust(),
            self.python(),
            self.new_items(),
        ];
        Ok(parts.join("\n"))
    }

    fn repo(&self) -> &str {
        self.export.repo.as_deref().unwrap_or(REPO)
    }

    fn head(&self) -> String {
        let Export { name, description, .. } = self.export;
        let what = "A generative recommender with Semantic IDs ([TIGER](https://arxiv.org/abs/2305.05065)), trained by genrec. An item's \
                    text is a vector, the vector a few codes; a sequence-to-sequence transformer writes the codes of the item that comes \
                    next in a history.\n";
        let description = description.as_ref().map(|text| format!("{}\n\n", text.trim())).unwrap_or_default();
        format!("# {name}\n\n{description}{what}")
    }

    fn data(&self) -> String {
        let data = &self.report.dataset;
        let added = match self.items.saturating_sub(data.items) {
            0 => String::new(),
            added => format!("\nItems added after training: {}.\n", count(added)),
        };
        format!(
            "## Data\n\n| data set | users | items | interactions | mean length | median length |\n|---|---|---|---|---|---|\n| {} | {} | {} | {} | {:.2} | {} |\n{added}",
            cell(&data.name),
            count(data.users),
            count(data.items),
            count(data.interactions),
            data.mean_length,
            data.median_length,
        )
    }

    fn results(&self) -> String {
        let Report { test, test_intervals, valid, baselines, .. } = self.report;
        let number = |value: Option<&f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
        let mut text = "## Results\n\nLeave-one-out: of each user the last item is the test's target, the one before it the validation's. Ranks are among all \
                        items. Intervals are of 95 %, by bootstrap over the users.\n\n| metric | test | interval | validation |"
            .to_owned();
        baselines.keys().for_each(|name| text += &format!(" {} |", cell(&name.replace('_', " "))));
        text += &format!("\n|{}\n", "---|".repeat(4 + baselines.len()));
        for (metric, value) in test {
            let interval = test_intervals.get(metric);
            let interval = interval.map_or_else(|| "–".to_owned(), |at| format!("{:.4} to {:.4}", at.low, at.high));
            text += &format!("| {} | {value:.4} | {interval} | {} |", metric_name(metric), number(valid.get(metric)));
            baselines.values().for_each(|metrics| text += &format!(" {} |", number(metrics.get(metric))));
            text.push('\n');
        }
        text
    }

    fn model(&self) -> String {
        let (model, train, config) = (self.model, &self.report.train, &self.manifest.config);
        let rows = [
            ("weights", count(train.parameters)),
            ("blocks of encoder and decoder", format!("{} + {}", model.num_layers, model.num_decoder_layers)),
            ("width, heads, feed-forward", {
                format!("{}, {} of {}, {}", model.d_model, model.num_heads, model.d_kv, model.d_ff)
            }),
            ("tokens", count(model.vocab_size)),
            ("encoder", if model.causal_encoder { "causal" } else { "bidirectional" }.to_owned()),
            ("items of a history", count(config.decode.max_history)),
            ("beams", count(config.decode.beams)),
            ("examples, steps, epochs of training", {
                format!("{}, {}, {}", group(train.examples), group(train.steps), train.epochs)
            }),
            ("batch size", count(config.batch_size)),
            ("seed", config.seed.to_string()),
        ];
        let mut text = "## Model\n\n| | |\n|---|---|\n".to_owned();
        rows.iter().for_each(|(what, value)| text += &format!("| {what} | {value} |\n"));
        text + "\nEvery setting is in `run.json`, every number of the run in `report.json`.\n"
    }

    fn semantic_ids(&self) -> Result<String> {
        let sid = &self.report.sid;
        let mut text = "## Semantic IDs\n\n| level | codes | used | perplexity |\n|---|---|---|---|\n".to_owned();
        for (level, ((size, used), perplexity)) in
            sid.codebook_sizes.iter().zip(&sid.codes_used).zip(&sid.perplexity).enumerate()
        {
            text += &format!("| {} | {size} | {used} | {perplexity:.1} |\n", level + 1);
        }
        let error = sid.reconstruction_error;
        let error = error
            .map(|error| format!(" Reconstruction error {error:.4} (0 is perfect, 1 the mean)."))
            .unwrap_or_default();
        let settings = serde_json::to_string_pretty(&self.manifest.config.quantizer)
            .map_err(|source| Error::Json { path: "README.md".into(), source })?;
        text += &format!(
            "\nCollision rate before any suffix {:.4}, at most {} items share all codes.{error} The quantiser:\n\n```json\n{settings}\n```\n",
            sid.collision_rate, sid.largest_group
        );
        Ok(text)
    }

    fn rust(&self) -> String {
        USAGE.replace("rust,no_run", "rust").replace(REPO, self.repo())
    }

    fn python(&self) -> String {
        let mut text = "## The model alone\n\n".to_owned();
        if self.model.causal_encoder {
            return text
                + "`model/` holds weights in Hugging Face's T5 layout, but the encoder is causal, which `transformers` has not: only genrec \
                   runs it.\n";
        }
        let _ = writeln!(
            text,
            "`model/` is a T5 of `transformers`, without a tokenizer: its tokens are codes.\n\n```python\nfrom transformers import T5ForConditionalGeneration\n\n\
             model = T5ForConditionalGeneration.from_pretrained(\"{}\", subfolder=\"model\")\n```\n\n| tokens | meaning |\n|---|---|\n| 0 | padding, start of decoding |\n| 1 | end of a sequence, in no target |",
            self.repo()
        );
        for position in 0..self.vocab.layout().positions() {
            let tokens = self.vocab.position_range(position);
            let _ = writeln!(text, "| {} to {} | codes of position {} |", tokens.start, tokens.end - 1, position + 1);
        }
        let users = self.vocab.user_range();
        if !users.is_empty() {
            let _ = writeln!(text, "| {} to {} | users, by a hash of their id |", users.start, users.end - 1);
        }
        text + "\nA source is the user's token, if there is one, and the codes of each item of the history, oldest first; a target is the codes of \
                the next item. `index/` has the codes of every row of `catalogue/items.jsonl`.\n"
    }

    fn new_items(&self) -> String {
        let text = match self.embedder {
            Some(model) => format!(
                "The texts of the items were embedded by `{}` (SHA-256 of its files `{}`), which is not part of this repository. Recommending does without it. \
                 To add items by their texts, get it, and hand `AnyEmbedder::load_relocated(\"embedder\", its directory, ..)` to \
                 `Recommender::with_embedder`; a model of other files is refused.",
                model.dir.display(),
                model.sha256
            ),
            None if self.manifest.config.embedder.is_text() => {
                "What embeds texts is part of this repository: `Recommender::add_item` takes items that training never saw.".to_owned()
            }
            None => "The run was made from ready embeddings: `Recommender::add_item_with_embedding` takes new items with vectors of the same encoder.".to_owned(),
        };
        format!("## New items\n\n{text}\n")
    }
}

/// A number with its thousands apart.
fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn count(number: usize) -> String {
    group(number as u64)
}

/// Text that stays within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_cells_are_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(group(number), text);
        }
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
