//! A filter on disk: one safetensors file.

use std::{collections::HashMap, path::Path};

use candle_core::{DType, Device, Tensor, safetensors::Load};
use safetensors::SafeTensors;

use super::CoOccurrence;
use crate::{error::ModelError, io};

/// The version of the file's format, in its metadata.
const FORMAT_VERSION: u64 = 1;
const VERSION: &str = "format_version";

impl CoOccurrence {
    /// Writes a safetensors file: `lengths` (items), u32, the number of neighbours of each item; `neighbours` and `weights`
    /// (pairs), u32 and f32, those of one item after the other; `popularity` (items), f32.
    ///
    /// It is written under a temporary name, flushed to the disk and renamed.
    ///
    /// # Errors
    /// [`ModelError::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ModelError> {
        let path = path.as_ref();
        let lengths: Vec<u32> = self.neighbours.iter().map(|of_item| of_item.len() as u32).collect();
        let (items, weights): (Vec<u32>, Vec<f32>) = self.neighbours.iter().flatten().copied().unzip();
        let vector = |values: Vec<u32>| Tensor::from_slice(&values, values.len(), &Device::Cpu);
        let tensors = [
            ("lengths", vector(lengths)?),
            ("neighbours", vector(items)?),
            ("weights", Tensor::from_slice(&weights, weights.len(), &Device::Cpu)?),
            ("popularity", Tensor::from_slice(&self.popularity, self.popularity.len(), &Device::Cpu)?),
        ];
        let metadata = HashMap::from([(VERSION.to_owned(), FORMAT_VERSION.to_string())]);
        let bytes = safetensors::serialize(tensors, Some(metadata))
            .map_err(|source| ModelError::Safetensors { path: path.to_owned(), source })?;
        io::write_atomically(path, &bytes)
    }

    /// Reads a file written by [`save`](Self::save).
    ///
    /// # Errors
    /// [`ModelError`] says that the file cannot be read, is damaged or of a later version, or does not fit together.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let bytes = io::read(path)?;
        let damaged = |source| ModelError::Safetensors { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let version = header.metadata().as_ref().and_then(|fields| fields.get(VERSION)?.parse().ok());
        let misfit = |reason| ModelError::CoOccurrence { path: path.to_owned(), reason };
        match version {
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                return Err(ModelError::FormatVersion { path: path.to_owned(), found, supported: FORMAT_VERSION });
            }
            None => return Err(misfit("it has no format version")),
        }
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let vector = |name: &str, dtype: DType| {
            let tensor = file.tensor(name).map_err(damaged)?.load(&Device::Cpu)?;
            match (tensor.rank(), tensor.dtype() == dtype) {
                (1, true) => Ok(tensor),
                (1, false) => Err(misfit("a tensor has another type")),
                _ => Err(misfit("a tensor has more than one axis, or none")),
            }
        };
        let lengths = vector("lengths", DType::U32)?.to_vec1::<u32>()?;
        let items = vector("neighbours", DType::U32)?.to_vec1::<u32>()?;
        let weights = vector("weights", DType::F32)?.to_vec1::<f32>()?;
        let popularity = vector("popularity", DType::F32)?.to_vec1::<f32>()?;
        let pairs = lengths.iter().fold(0_u64, |sum, &length| sum + u64::from(length));
        if popularity.len() != lengths.len() {
            return Err(misfit("its tensors count items differently"));
        }
        if weights.len() != items.len() || pairs != items.len() as u64 {
            return Err(misfit("its tensors count pairs differently"));
        }
        let mut weighed = weights.iter().chain(&popularity);
        if !weighed.clone().all(|value| value.is_finite()) {
            return Err(misfit("a weight is no number"));
        }
        if weighed.any(|&value| value < 0.0) {
            return Err(misfit("a weight is negative"));
        }
        let mut rest = items.into_iter().zip(weights);
        let neighbours: Vec<Vec<(u32, f32)>> =
            lengths.iter().map(|&length| rest.by_ref().take(length as usize).collect()).collect();
        let ascending = |of_item: &Vec<(u32, f32)>| of_item.is_sorted_by(|a, b| a.0 < b.0);
        let known = |of_item: &Vec<(u32, f32)>| of_item.last().is_none_or(|last| (last.0 as usize) < lengths.len());
        if !neighbours.iter().all(ascending) {
            return Err(misfit("an item's neighbours are not in order"));
        }
        if !neighbours.iter().all(known) {
            return Err(misfit("an item's neighbour is not in the catalogue"));
        }
        Ok(Self { neighbours, popularity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_and_what_is_damaged_is_not() {
        let filter = CoOccurrence::fit([vec![0, 1, 2, 3, 1], vec![4, 2, 0]], 6).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("near.safetensors");
        filter.save(&path).unwrap();
        let read = CoOccurrence::load(&path).unwrap();
        assert_eq!((&read.neighbours, &read.popularity), (&filter.neighbours, &filter.popularity));
        assert!(matches!(CoOccurrence::load(dir.path().join("none")), Err(ModelError::Io { .. })));
        let lonely = CoOccurrence::fit([vec![0]], 2).unwrap();
        lonely.save(dir.path().join("lonely")).unwrap();
        assert_eq!(CoOccurrence::load(dir.path().join("lonely")).unwrap().neighbours, lonely.neighbours);
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(CoOccurrence::load(&path).is_err(), "cut at {cut}");
        }
        let broken: [fn(&mut CoOccurrence); 4] = [
            |filter| filter.popularity.push(0.5),
            |filter| filter.neighbours[0][0].1 = f32::NAN,
            |filter| filter.neighbours[1].reverse(),
            |filter| filter.neighbours[2].push((6, 1.0)),
        ];
        for lie in broken {
            let mut filter = filter.clone();
            lie(&mut filter);
            filter.save(&path).unwrap();
            assert!(matches!(CoOccurrence::load(&path), Err(ModelError::CoOccurrence { .. })));
        }
        let at = bytes.windows(20).position(|part| part == br#""format_version":"1""#).unwrap();
        let mut bytes = bytes;
        bytes[at + 18] = b'7';
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(CoOccurrence::load(&path), Err(ModelError::FormatVersion { found: 7, .. })));
    }
}
