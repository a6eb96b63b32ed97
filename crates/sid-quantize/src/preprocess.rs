//! What happens to a row before it is quantised, learned from the rows and kept with the model.

mod projection;
mod standardizer;

pub(crate) use projection::Projection;

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Result as TensorResult, Tensor};
use ndarray::{Array2, ArrayViewMut2};
use standardizer::Standardizer;

use crate::usage::scan;
use crate::{QuantizeError, Result, RowSource};

/// What a configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Mean 0 and deviation 1 for every feature.
    pub(crate) standardize: bool,
    /// Principal components that are kept, each with variance 1; after standardisation if both.
    pub(crate) whiten: Option<usize>,
}

impl Steps {
    /// Checks the bounds that do not depend on the rows.
    pub(crate) fn validate(self) -> Result<()> {
        match self.whiten {
            Some(0) => Err(QuantizeError::config("whiten", 0, "at least 1 component is needed; leave it out for none")),
            _ => Ok(()),
        }
    }

    /// Columns of a row after these steps.
    pub(crate) fn width(self, dim: usize) -> usize {
        self.whiten.unwrap_or(dim)
    }
}

/// The steps, learned: `x -> ((x - mean) / deviation - centre) P`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preprocess {
    standardizer: Option<Standardizer>,
    projection: Option<Projection>,
}

impl Preprocess {
    /// Learns the steps. All rows are read and checked even where there is no step.
    pub(crate) fn fit(steps: Steps, rows: &mut dyn RowSource, device: &Device) -> Result<Self> {
        let dim = rows.dim();
        if dim == 0 {
            return Err(QuantizeError::DimMismatch { expected: 1, got: 0 });
        }
        if let Some(components) = steps.whiten.filter(|&components| components > dim) {
            return Err(QuantizeError::config("whiten", components, "there are no more components than columns"));
        }
        let mut learned = Self::default();
        if steps.standardize {
            learned.standardizer = Some(Standardizer::fit(rows, device)?);
        } else {
            scan(dim, rows, |_, _| Ok(()))?;
        }
        if let Some(components) = steps.whiten {
            learned.projection = Some(Projection::whitening(components, &mut learned.rows(rows), device)?);
        }
        Ok(learned)
    }

    /// These steps, and then a projection of what they give.
    pub(crate) fn then(mut self, next: Projection) -> Result<Self> {
        self.projection = Some(match self.projection.take() {
            Some(first) => first.then(&next)?,
            None => next,
        });
        Ok(self)
    }

    /// The steps that lead to these columns, and where the columns lie in what the steps give: a projection leaves out
    /// the others, which are then never computed.
    pub(crate) fn columns(&self, columns: Range<usize>) -> TensorResult<(Self, Range<usize>)> {
        let Some(projection) = &self.projection else {
            return Ok((self.clone(), columns));
        };
        let projection = Some(projection.columns(columns.clone())?);
        Ok((Self { standardizer: self.standardizer.clone(), projection }, 0..columns.len()))
    }

    /// The shapes of [`tensors`](Self::tensors) after fits with these steps.
    pub(crate) fn shapes(steps: Steps, dim: usize, into: &mut BTreeMap<String, Vec<usize>>) {
        if steps.standardize {
            into.insert(standardizer::MEAN.to_owned(), vec![1, dim]);
            into.insert(standardizer::DEVIATION.to_owned(), vec![1, dim]);
        }
        if let Some(width) = steps.whiten {
            Projection::shapes(dim, width, into);
        }
    }

    pub(crate) fn tensors(&self, into: &mut BTreeMap<String, Tensor>) {
        if let Some(standardizer) = &self.standardizer {
            standardizer.tensors(into);
        }
        if let Some(projection) = &self.projection {
            projection.tensors(into);
        }
    }

    /// From what [`tensors`](Self::tensors) gave, whose shapes the caller has checked.
    pub(crate) fn load(tensors: &BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let standardizer = match tensors.contains_key(standardizer::MEAN) {
            true => Some(Standardizer::load(tensors, device)?),
            false => None,
        };
        Ok(Self { standardizer, projection: Projection::load(tensors, device)? })
    }

    /// Whether rows stay as they are.
    pub(crate) fn is_identity(&self) -> bool {
        self.standardizer.is_none() && self.projection.is_none()
    }

    pub(crate) fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// `(n, dim)` to `(n, width)`.
    pub(crate) fn apply(&self, xs: &Tensor) -> TensorResult<Tensor> {
        let mut xs = xs.clone();
        if let Some(standardizer) = &self.standardizer {
            xs = standardizer.apply(&xs)?;
        }
        if let Some(projection) = &self.projection {
            xs = projection.apply(&xs)?;
        }
        Ok(xs)
    }

    /// The inverse of [`apply`](Self::apply), as far as there is one: what a projection drops comes back as its mean.
    pub(crate) fn invert(&self, xs: &Tensor) -> TensorResult<Tensor> {
        let mut xs = xs.clone();
        if let Some(projection) = &self.projection {
            xs = projection.invert(&xs)?;
        }
        if let Some(standardizer) = &self.standardizer {
            xs = standardizer.invert(&xs)?;
        }
        Ok(xs)
    }

    /// Standardises rows that lie one after another, in place; the projection is left to the caller.
    pub(crate) fn standardize_rows(&self, rows: &mut [f32]) {
        if let Some(standardizer) = &self.standardizer {
            standardizer.apply_rows(rows);
        }
    }

    /// The rows after these steps, computed as they are read.
    pub(crate) fn rows<'a>(&'a self, source: &'a mut dyn RowSource) -> Prepared<'a> {
        Prepared { source, preprocess: self }
    }
}

/// Rows after the steps before a quantiser.
pub(crate) struct Prepared<'a> {
    source: &'a mut dyn RowSource,
    preprocess: &'a Preprocess,
}

impl Prepared<'_> {
    fn fill(
        &mut self,
        mut out: ArrayViewMut2<'_, f32>,
        read: impl FnOnce(&mut dyn RowSource, ArrayViewMut2<'_, f32>) -> Result<()>,
    ) -> Result<()> {
        let Preprocess { standardizer, projection } = self.preprocess;
        let Some(projection) = projection else {
            read(self.source, out.view_mut())?;
            if let Some(standardizer) = standardizer {
                standardizer.apply_host(out);
            }
            return Ok(());
        };
        let mut raw = Array2::zeros((out.nrows(), self.source.dim()));
        read(self.source, raw.view_mut())?;
        let mut raw = raw.into_raw_vec_and_offset().0;
        if let Some(standardizer) = standardizer {
            standardizer.apply_rows(&mut raw);
        }
        let projected = projection.apply_rows(&raw)?;
        out.iter_mut().zip(projected).for_each(|(slot, value)| *slot = value);
        Ok(())
    }
}

impl RowSource for Prepared<'_> {
    fn dim(&self) -> usize {
        self.preprocess.projection.as_ref().map_or(self.source.dim(), Projection::width)
    }

    fn len(&self) -> usize {
        self.source.len()
    }

    fn read(&mut self, start: usize, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.fill(out, |source, out| source.read(start, out))
    }

    fn slice(&self, start: usize, count: usize) -> Option<&[f32]> {
        self.preprocess.is_identity().then(|| self.source.slice(start, count)).flatten()
    }

    fn gather(&mut self, rows: &[usize], out: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.fill(out, |source, out| source.gather(rows, out))
    }
}

#[cfg(test)]
mod tests;
