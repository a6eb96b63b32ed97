//! The stages that read the items' content: embeddings and codes.

use std::{
    borrow::Cow,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use genrec_embed::{AnyEmbedder, Embedder, behaviour::Blend};
use ndarray::Array2;
use sid_quantize::{
    AnyQuantizer, ArrayRows, EpochReport, Fit, FitControl, QuantizeError, Quantizer, QuantizerConfig, usage,
};

use super::{
    EmbeddingSource, Event, Observer, SidReport, Stage,
    run::{Context, first_difference},
};
use crate::{Error, Result, artifacts, encoder::ItemEmbedder};

/// Rows encoded together.
pub(super) const ENCODE_BATCH: usize = 4_096;

/// The items' embeddings and, where they came from text, what embeds new items.
pub(super) type Content = (Array2<f32>, ItemEmbedder);

/// Embeds every item, or reads what an earlier run left; says which.
pub(super) fn embed(ctx: &Context<'_>, observer: &mut dyn Observer) -> Result<(Content, bool)> {
    let path = ctx.run.embeddings();
    let source = &ctx.config.embedder;
    if artifacts::exists(&path)? {
        let embeddings = check_rows(ctx, genrec_embed::io::read_safetensors(&path)?)?;
        let (dir, device) = (ctx.run.embedder(), ctx.device.clone());
        let embedder = if source.is_text() { ItemEmbedder::Saved { dir, device } } else { ItemEmbedder::Absent };
        return Ok(((embeddings, embedder), true));
    }
    let (embeddings, embedder) = match source {
        EmbeddingSource::Npy { path } => (genrec_embed::io::read_npy(path)?, ItemEmbedder::Absent),
        EmbeddingSource::Text { embedder: spec } => {
            let items = ctx.dataset.catalogue.items();
            let texts: Vec<String> =
                items.iter().map(|item| ctx.config.text.render(|field| item.field(field))).collect();
            let embedder = AnyEmbedder::fit(spec, &texts, ctx.device)?;
            let mut progress = |done, total| observer.on_event(&Event::Progress { stage: Stage::Embed, done, total });
            let embeddings = embedder.embed_with(&texts, &mut progress)?;
            embedder.save(ctx.run.embedder())?;
            (embeddings, embedder.into())
        }
    };
    let embeddings = check_rows(ctx, embeddings)?;
    genrec_embed::io::write_safetensors(&path, embeddings.view())?;
    Ok(((embeddings, embedder), false))
}

fn check_rows(ctx: &Context<'_>, embeddings: Array2<f32>) -> Result<Array2<f32>> {
    let items = ctx.dataset.catalogue.len();
    if embeddings.nrows() == items {
        return Ok(embeddings);
    }
    Err(Error::Mismatch {
        what: "items",
        left: "the catalogue",
        left_value: items,
        right: "the embeddings",
        right_value: embeddings.nrows(),
    })
}

/// What Semantic IDs are made of: content as it is, or blended with behaviour.
pub(super) fn features<'e>(
    ctx: &Context<'_>,
    content: &'e Array2<f32>,
) -> Result<(Cow<'e, Array2<f32>>, Option<Blend>)> {
    let Some(config) = &ctx.config.blend else { return Ok((Cow::Borrowed(content), None)) };
    let dir = ctx.run.behaviour();
    // Of the blend's files the one that is written last.
    let blend = if artifacts::exists(&dir.join("config.json"))? {
        Blend::load(&dir)?
    } else {
        let blend = Blend::fit(content.view(), ctx.split.train_rows(), config.clone())?;
        blend.save(&dir)?;
        blend
    };
    Ok((Cow::Owned(blend.rows(content.view())?), Some(blend)))
}

/// Fits the quantiser, or reads what an earlier run left.
pub(super) fn quantize(
    ctx: &Context<'_>,
    embeddings: &Array2<f32>,
    observer: &mut dyn Observer,
) -> Result<(AnyQuantizer, bool)> {
    let dir = ctx.run.quantizer();
    if artifacts::exists(&quantizer_file(ctx))? {
        return Ok((AnyQuantizer::load(&dir, ctx.device)?, true));
    }
    if let Some(quantizer) = fitted(ctx)? {
        let (expected, got) = (quantizer.dim(), embeddings.ncols());
        if expected != got {
            return Err(QuantizeError::DimMismatch { expected, got }.into());
        }
        quantizer.save(&dir)?;
        return Ok((quantizer, false));
    }
    let share = ctx.budget.and_then(|budget| Instant::now().checked_add(budget.total.mul_f64(budget.quantize_share)));
    let deadline = share.min(ctx.deadline(Duration::ZERO));
    let mut watch = FitWatch { deadline, observer };
    let mut rows = ArrayRows::from(embeddings.view());
    let quantizer = ctx.config.quantizer.fit_on(&mut rows, ctx.device, &mut watch)?;
    quantizer.save(&dir)?;
    Ok((quantizer, false))
}

/// The quantiser that was fitted elsewhere, if there is one and the run has not taken it yet.
///
/// # Errors
/// [`Error::Config`] when it has other settings than the run's but for the seed, and those of loading it.
pub(super) fn fitted(ctx: &Context<'_>) -> Result<Option<AnyQuantizer>> {
    let Some(path) = &ctx.config.fitted_quantizer else { return Ok(None) };
    if artifacts::exists(&quantizer_file(ctx))? {
        return Ok(None);
    }
    let quantizer = AnyQuantizer::load(path, ctx.device)?;
    let json = |config: QuantizerConfig| {
        serde_json::to_value(config.with_seed(0)).map_err(|source| Error::Json { path: path.clone(), source })
    };
    match first_difference("", &json(ctx.config.quantizer.clone())?, &json(quantizer.config())?) {
        None => Ok(Some(quantizer)),
        Some((field, wanted, found)) => {
            let value = format!("{}, fitted with {field} {found} where `quantizer` has {wanted}", path.display());
            Err(Error::Config { field: "fitted_quantizer", value, expected: "one of the same settings" })
        }
    }
}

/// Of the quantiser's files the one that is written last: a run may have been killed between them.
fn quantizer_file(ctx: &Context<'_>) -> PathBuf {
    ctx.run.quantizer().join("config.json")
}

struct FitWatch<'a> {
    deadline: Option<Instant>,
    observer: &'a mut dyn Observer,
}

impl FitControl for FitWatch<'_> {
    fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
        self.observer.on_event(&Event::QuantizerEpoch(epoch));
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Quality of the codes, before any suffix.
pub(super) fn sid_report(quantizer: &AnyQuantizer, embeddings: &Array2<f32>, codes: &Array2<u32>) -> Result<SidReport> {
    let sizes = quantizer.codebook_sizes();
    let report = usage::CodeReport::of(codes.view(), sizes)?;
    let mut rows = ArrayRows::from(embeddings.view());
    let error =
        quantizer.as_reconstruct().map(|quantizer| usage::reconstruction_error(quantizer, &mut rows)).transpose()?;
    Ok(SidReport {
        levels: sizes.len(),
        codebook_sizes: sizes.to_vec(),
        codes_used: report.levels.iter().map(|level| level.used).collect(),
        perplexity: report.levels.iter().map(|level| level.perplexity).collect(),
        collision_rate: report.collision_rate,
        largest_group: report.largest_group,
        reconstruction_error: error.map(|error| error.relative),
    })
}
