//! Encoding on the host: rows are read where they lie, and no activation leaves the cache.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Error, Result, Tensor, bail};
use genrec_kernels::host;
use genrec_kernels::matmul::{Panels, Target, View, padded, product};
use genrec_kernels::vectorized;
use rayon::prelude::*;

use crate::coding::Search;
use crate::preprocess::Preprocess;

/// Rows that one task takes through all layers: they stay in a second-level cache, and the weights, which do not, are read
/// once for all of them.
const BLOCK: usize = 120;

/// Rows whose latent vectors are held at once.
const ROWS: usize = 4096;

/// A linear layer, packed.
#[derive(Debug)]
struct Layer {
    /// `(in, out)`.
    weight: Panels,
    bias: Vec<f32>,
    relu: bool,
}

/// What turns a latent vector into codes.
pub(crate) trait Codes: std::fmt::Debug + Send + Sync {
    /// Codes of a row.
    fn levels(&self) -> usize;

    /// Writes the codes of each row.
    ///
    /// # Shapes
    /// - `xs`: `(n, width)` row-major; `codes`: `(n, levels)`
    fn codes(&self, xs: &[f32], codes: &mut [u32]) -> Result<()>;
}

impl Codes for Search {
    fn levels(&self) -> usize {
        Self::levels(self)
    }

    fn codes(&self, xs: &[f32], codes: &mut [u32]) -> Result<()> {
        Self::codes(self, xs, codes)
    }
}

/// Everything that turns embeddings into codes, prepared once.
#[derive(Debug)]
pub(crate) struct HostEncoder {
    dim: usize,
    preprocess: Preprocess,
    layers: Vec<Layer>,
    codes: Box<dyn Codes>,
}

/// An encoder that is prepared when it is first needed and shared by the clones of its quantiser.
#[derive(Clone, Debug, Default)]
pub(crate) struct LazyEncoder(Arc<OnceLock<HostEncoder>>);

impl LazyEncoder {
    /// The encoder, made by `new` unless there is one.
    pub(crate) fn get(&self, new: impl FnOnce() -> Result<HostEncoder>) -> Result<&HostEncoder> {
        if let Some(encoder) = self.0.get() {
            return Ok(encoder);
        }
        let made = new()?;
        Ok(self.0.get_or_init(|| made))
    }
}

/// Whether a quantiser on `device` encodes these rows on the host.
pub(crate) fn on_host(device: &Device, xs: &Tensor) -> bool {
    device.is_cpu() && xs.device().is_cpu() && xs.dtype() == DType::F32
}

/// What one thread computes with.
#[derive(Debug, Default)]
struct Buffers {
    input: Vec<f32>,
    output: Vec<f32>,
}

impl HostEncoder {
    /// From what comes before the network, its weights `(out, in)` and biases `(out,)` with ReLU between the layers, and
    /// what turns its output into codes.
    pub(crate) fn new<'a>(
        dim: usize,
        preprocess: &Preprocess,
        network: impl IntoIterator<Item = (&'a Tensor, &'a Tensor)>,
        codes: impl Codes + 'static,
    ) -> Result<Self> {
        let layer = |(weight, bias): (&Tensor, &Tensor)| {
            let (out, width) = weight.dims2()?;
            let mut panels = Panels::default();
            host::read(weight, |values| {
                panels.pack(View::new(values, out, width, width).map_err(Error::wrap)?.t());
                Ok(())
            })?;
            Ok(Layer { weight: panels, bias: host::read(bias, |values| Ok(values.to_vec()))?, relu: true })
        };
        let mut network = network.into_iter().map(layer).collect::<Result<Vec<_>>>()?;
        if let Some(last) = network.last_mut() {
            last.relu = false;
        }
        let projection = preprocess.projection().map(|projection| {
            let (weight, bias) = projection.host();
            Layer { weight: weight.clone(), bias: bias.to_vec(), relu: false }
        });
        let layers = projection.into_iter().chain(network).collect();
        Ok(Self { dim, preprocess: preprocess.clone(), layers, codes: Box::new(codes) })
    }

    /// Writes the codes of each row.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)` row-major; `codes`: `(n, levels)`
    pub(crate) fn encode(&self, xs: &[f32], codes: &mut [u32]) -> Result<()> {
        let levels = self.codes.levels();
        if !xs.len().is_multiple_of(self.dim.max(1)) || codes.len() != xs.len() / self.dim.max(1) * levels {
            let (values, dim, places) = (xs.len(), self.dim, codes.len());
            bail!("{values} values are no rows of {dim} columns with {places} places for their {levels} codes each")
        }
        if self.layers.is_empty() && self.preprocess.is_identity() {
            return self.codes.codes(xs, codes);
        }
        let width = self.layers.last().map_or(self.dim, |layer| layer.bias.len());
        let mut latent = vec![0.0; width * ROWS.min(xs.len() / self.dim.max(1))];
        for (xs, codes) in xs.chunks(ROWS * self.dim).zip(codes.chunks_mut(ROWS * levels)) {
            let latent = &mut latent[..xs.len() / self.dim * width];
            xs.par_chunks(BLOCK * self.dim)
                .zip(latent.par_chunks_mut(BLOCK * width))
                .try_for_each_init(Buffers::default, |buffers, (xs, latent)| self.latent(xs, latent, buffers))?;
            self.codes.codes(latent, codes)?;
        }
        Ok(())
    }

    /// [`encode`](Self::encode) of a tensor: `(n, levels)`, u32.
    pub(crate) fn encode_tensor(&self, xs: &Tensor) -> Result<Tensor> {
        let shape = (xs.dim(0)?, self.codes.levels());
        let mut codes = vec![0; shape.0 * shape.1];
        host::read(xs, |xs| self.encode(xs, &mut codes))?;
        Tensor::from_vec(codes, shape, &Device::Cpu)
    }

    /// Takes a block of rows through all layers.
    fn latent(&self, xs: &[f32], latent: &mut [f32], buffers: &mut Buffers) -> Result<()> {
        let rows = xs.len() / self.dim;
        let Buffers { input, output } = buffers;
        input.clear();
        input.extend_from_slice(xs);
        self.preprocess.standardize_rows(input);
        let mut stride = self.dim;
        for Layer { weight, bias, relu } in &self.layers {
            let out = padded(bias.len());
            output.resize(rows * out, 0.0);
            let view = View::new(input, rows, weight.rows(), stride).map_err(Error::wrap)?;
            product(view, weight, Target::set(output, out).with_padding()).map_err(Error::wrap)?;
            activate(output, out, bias, *relu);
            std::mem::swap(input, output);
            stride = out;
        }
        let width = latent.len() / rows;
        for (latent, row) in latent.chunks_exact_mut(width).zip(input.chunks_exact(stride)) {
            latent.copy_from_slice(&row[..width]);
        }
        Ok(())
    }
}

/// Adds the bias to each row and, if `relu`, replaces what is negative by 0.
fn activate(rows: &mut [f32], stride: usize, bias: &[f32], relu: bool) {
    vectorized(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(stride) {
                for (y, b) in row.iter_mut().zip(bias) {
                    let sum = *y + b;
                    *y = if relu && sum < 0.0 { 0.0 } else { sum };
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use genrec_kernels::CounterRng;
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::ArrayRows;
    use crate::coding::Coding;
    use crate::preprocess::Steps;

    fn normal(seed: u64, shape: (usize, usize)) -> Tensor {
        let mut values = vec![0f32; shape.0 * shape.1];
        CounterRng::new(seed).fill_normal(&mut values);
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn codes_are_those_of_the_graph(
            seed: u64, n in 0usize..120, widths in proptest::collection::vec(1usize..40, 1..4), k in 1usize..50,
            standardize: bool,
        ) {
            let dim = widths[0];
            let xs = normal(seed, (n, dim));
            let weights: Vec<(Tensor, Tensor)> = widths
                .windows(2)
                .zip(1..)
                .map(|(pair, at)| (normal(seed ^ at, (pair[1], pair[0])), normal(seed ^ (at + 9), (1, pair[1])).squeeze(0).unwrap()))
                .collect();
            let latent_dim = widths[widths.len() - 1];
            let books = [normal(seed ^ 20, (k, latent_dim)), normal(seed ^ 21, (k + 1, latent_dim))];
            let rows = Array2::from_shape_fn((30, dim), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
            let steps = Steps { standardize, whiten: None };
            let preprocess =
                Preprocess::fit(steps, &mut ArrayRows::from(rows.view()), &Device::Cpu).unwrap();
            let coding = Coding::default();
            let search = Search::new(coding, latent_dim, &books).unwrap();
            let encoder =
                HostEncoder::new(dim, &preprocess, weights.iter().map(|(w, b)| (w, b)), search).unwrap();
            let mut codes = vec![9; n * 2];
            host::read(&xs, |xs| encoder.encode(xs, &mut codes)).unwrap();

            let mut latent = preprocess.apply(&xs).unwrap();
            for (at, (weight, bias)) in weights.iter().enumerate() {
                latent = latent.matmul(&weight.t().unwrap()).unwrap().broadcast_add(bias).unwrap();
                if at + 1 < weights.len() {
                    latent = latent.relu().unwrap();
                }
            }
            let expected = coding.encode(&latent, &[&books[0], &books[1]]).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
            // Rounding may decide between codewords that are as near as each other.
            let differing = codes.iter().zip(&expected).filter(|(a, b)| a != b).count();
            prop_assert!(differing * 50 <= codes.len(), "{differing} of {} codes differ", codes.len());
        }
    }
}
