//! What users did, for quantisers that are aligned with behaviour as LETTER's is, and for reports on codes.

use std::path::Path;

use genrec::{
    data::{Catalogue, LeaveOneOut, ReadOptions, Sequences, readers::neutral},
    embed::behaviour::{self, BehaviourConfig},
    quantize::QuantizerConfig,
};
use ndarray::Array2;

use crate::BoxError;

/// The behaviour of a directory's users, of their training parts alone, in the form that a quantiser's settings ask for;
/// `None` where they ask for none.
///
/// # Errors
/// As [`behaviour::embed`], and when the sequences cannot be read.
pub fn for_quantizer(
    config: &QuantizerConfig,
    dir: &Path,
    catalogue: &Catalogue,
) -> Result<Option<Array2<f32>>, BoxError> {
    let QuantizerConfig::RqVae(config) = config else { return Ok(None) };
    if config.alignment.is_none() {
        return Ok(None);
    }
    let (sequences, _) = neutral::read_sequences(&dir.join(neutral::SEQUENCES), catalogue, &ReadOptions::default())?;
    let wanted = BehaviourConfig::mutual_information().with_dims(config.latent_dim).with_seed(config.seed);
    Ok(Some(behaviour::embed(LeaveOneOut::new(&sequences).train_rows(), catalogue.len(), &wanted)?))
}

/// The last item of each user with the one before it: what leave-one-out tests, and no behaviour embedding has seen.
pub fn last_steps(sequences: &Sequences) -> Vec<[usize; 2]> {
    let split = LeaveOneOut::new(sequences);
    let step = |user| {
        let target = split.test(user)?;
        target.history.last().map(|last| [last.index(), target.item.index()])
    };
    (0..split.len()).filter_map(step).collect()
}

/// [`last_steps`] of a directory; none where it has no sequences.
///
/// # Errors
/// When the sequences cannot be read.
pub fn read_last_steps(dir: &Path, catalogue: &Catalogue) -> Result<Vec<[usize; 2]>, BoxError> {
    let path = dir.join(neutral::SEQUENCES);
    if !path.exists() {
        return Ok(Vec::new());
    }
    Ok(last_steps(&neutral::read_sequences(&path, catalogue, &ReadOptions::default())?.0))
}

#[cfg(test)]
mod tests;
