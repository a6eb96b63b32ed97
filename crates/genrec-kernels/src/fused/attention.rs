//! Multi-head attention of one sequence, without score scaling, with T5's relative position bias.

use crate::dropout::DropoutMask;
use crate::gemm::GemmError;
use crate::math::vectorized;
use crate::math::{exp, max, sum_by};
use crate::matmul::{Panels, Target, View, padded, product};

/// A bias of the scores that depends on the head and on the distance of key and query alone.
#[derive(Clone, Copy, Debug)]
pub struct RelativeBias<'a> {
    /// `(heads, span)`: the bias of key `j` for query `i` is element `centre + j - i` of the head's row.
    pub values: &'a [f32],
    /// Distances that a head's row holds.
    pub span: usize,
    /// Place of distance zero; at least the number of queries less one, and below `span` less the number of keys.
    pub centre: usize,
}

/// Fails unless `len` elements are enough for the operand.
fn enough(operand: &'static str, len: usize, rows: usize, cols: usize, stride: usize) -> Result<(), GemmError> {
    let expected = if rows == 0 { 0 } else { (rows - 1).saturating_mul(stride).saturating_add(cols) };
    if len >= expected { Ok(()) } else { Err(GemmError::Length { operand, rows, cols, expected, got: len }) }
}

impl RelativeBias<'_> {
    /// Where the biases of query `query` over its keys start.
    fn start(&self, head: usize, query: usize) -> usize {
        head * self.span + self.centre - query
    }
}

/// Shape of the attention of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub d_kv: usize,
    /// Number of queries.
    pub queries: usize,
    /// Number of keys.
    pub keys: usize,
    /// Whether query `i` sees only the keys up to `i + keys - queries`.
    pub causal: bool,
    /// Added to the scores.
    pub bias: Option<RelativeBias<'a>>,
    /// Dropout of the probabilities: element `(head, query, key)` counted row-major.
    pub dropout: Option<DropoutMask>,
}

/// Queries, keys and values, a row a position, the heads side by side.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    /// `(queries, heads * d_kv)`.
    pub q: &'a [f32],
    /// Distance of two queries.
    pub q_stride: usize,
    /// `(keys, heads * d_kv)`.
    pub k: &'a [f32],
    /// `(keys, heads * d_kv)`.
    pub v: &'a [f32],
    /// Distance of two keys, and of two values.
    pub kv_stride: usize,
}

/// Where the gradients of [`AttentionInputs`] go; the strides are the same. The end of `kv` must leave room for whole rows.
#[derive(Debug)]
pub struct AttentionGrads<'a> {
    /// Overwritten.
    pub q: &'a mut [f32],
    /// Keys' and values' gradients in one slice, for their rows may interleave; overwritten.
    pub kv: &'a mut [f32],
    /// Where the values' first row starts in it; the keys' starts at 0.
    pub v_start: usize,
    /// Added to; laid out as [`RelativeBias::values`].
    pub bias: Option<&'a mut [f32]>,
}

/// Memory that attention uses between its products.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    panels: Panels,
    first: Vec<f32>,
    second: Vec<f32>,
    /// Dropout factors of one head, without padding.
    factors: Vec<f32>,
}

impl AttentionScratch {
    fn grow(&mut self, len: usize) {
        if self.first.len() < len {
            self.first.resize(len, 0.0);
            self.second.resize(len, 0.0);
        }
    }
}

impl Attention<'_> {
    /// Elements of the probabilities that [`forward`](Self::forward) leaves for [`backward`](Self::backward).
    pub fn probs_len(&self) -> usize {
        self.heads * self.queries * padded(self.keys)
    }

    /// Checks the bias, whose reach depends on the shape alone.
    fn check_bias(&self) -> Result<(), GemmError> {
        let Some(bias) = &self.bias else { return Ok(()) };
        // The first query sees the most distant later key, the last one the most distant earlier one.
        let reach = bias.centre.checked_sub(self.queries.saturating_sub(1)).and(bias.centre.checked_add(self.keys));
        let fits = reach.is_some_and(|end| end <= bias.span);
        let needed = self.heads.saturating_mul(bias.span);
        if !fits || bias.values.len() < needed {
            let (expected, got) = (needed.max(self.queries + self.keys), bias.values.len());
            return Err(GemmError::Length { operand: "bias", rows: self.heads, cols: bias.span, expected, got });
        }
        Ok(())
    }

    /// Keys that a query sees: those before the returned position.
    #[inline(always)]
    fn visible(&self, query: usize) -> usize {
        if self.causal { self.keys.min((query + 1 + self.keys).saturating_sub(self.queries)) } else { self.keys }
    }

    /// $\mathrm{softmax}(Q K^\top + \text{bias}) V$ for each head.
    ///
    /// # Shapes
    /// `probs`: [`probs_len`](Self::probs_len) elements, overwritten with the probabilities before dropout; `out`:
    /// `(queries, heads * d_kv)`, its rows `out_stride` elements apart.
    ///
    /// # Errors
    /// When a slice is too short for its shape.
    pub fn forward(
        &self,
        inputs: AttentionInputs<'_>,
        probs: &mut [f32],
        out: &mut [f32],
        out_stride: usize,
        scratch: &mut AttentionScratch,
    ) -> Result<(), GemmError> {
        let (stride, d) = (padded(self.keys), self.d_kv);
        let per_head = self.queries * stride;
        if per_head == 0 || d == 0 {
            return Ok(());
        }
        self.check_bias()?;
        let inner = self.heads * d;
        enough("q", inputs.q.len(), self.queries, inner, inputs.q_stride)?;
        enough("k", inputs.k.len(), self.keys, inner, inputs.kv_stride)?;
        enough("v", inputs.v.len(), self.keys, inner, inputs.kv_stride)?;
        enough("probs", probs.len(), 1, self.probs_len(), 0)?;
        enough("out", out.len(), self.queries, inner, out_stride)?;
        scratch.grow(per_head);
        let AttentionScratch { panels, first, factors, .. } = scratch;
        for (head, probs) in probs.chunks_exact_mut(per_head).take(self.heads).enumerate() {
            let at = head * d;
            panels.pack(View::new(&inputs.k[at..], self.keys, d, inputs.kv_stride)?.t());
            let q = View::new(&inputs.q[at..], self.queries, d, inputs.q_stride)?;
            product(q, &*panels, Target::set(probs, stride).with_padding())?;
            self.softmax(head, probs, stride);
            let weights = match self.factors(head, factors) {
                None => &*probs,
                Some(factors) => {
                    self.drop(factors, probs, first, stride);
                    &first[..per_head]
                }
            };
            let v = View::new(&inputs.v[at..], self.keys, d, inputs.kv_stride)?;
            product(View::new(weights, self.queries, self.keys, stride)?, v, Target::set(&mut out[at..], out_stride))?;
        }
        Ok(())
    }

    /// [`forward`](Self::forward) over keys that were transposed beforehand, without dropout: for keys that are asked
    /// again and again, as the encoder's by every step of every beam.
    ///
    /// # Shapes
    /// `q`: `(queries, heads * d_kv)`; `keys`: `(heads * d_kv, keys)`, its rows [`padded(keys)`](padded) elements apart;
    /// `v`: `(keys, heads * d_kv)`; `out`: `(queries, heads * d_kv)`. `q`, `v` and `out` have no gaps.
    ///
    /// # Errors
    /// When a slice is too short for its shape.
    pub fn forward_transposed(
        &self,
        q: &[f32],
        keys: &[f32],
        v: &[f32],
        out: &mut [f32],
        scratch: &mut AttentionScratch,
    ) -> Result<(), GemmError> {
        let (stride, d, inner) = (padded(self.keys), self.d_kv, self.heads * self.d_kv);
        let per_head = self.queries * stride;
        if per_head == 0 || d == 0 {
            return Ok(());
        }
        self.check_bias()?;
        enough("q", q.len(), self.queries, inner, inner)?;
        enough("k", keys.len(), inner, stride, stride)?;
        enough("v", v.len(), self.keys, inner, inner)?;
        enough("out", out.len(), self.queries, inner, inner)?;
        scratch.grow(per_head);
        let probs = &mut scratch.first[..per_head];
        for head in 0..self.heads {
            let at = head * d;
            let q = View::new(&q[at..], self.queries, d, inner)?;
            let k = View::new(&keys[at * stride..], d, self.keys, stride)?;
            product(q, k, Target::set(probs, stride).with_padding())?;
            self.softmax(head, probs, stride);
            let v = View::new(&v[at..], self.keys, d, inner)?;
            product(View::new(probs, self.queries, self.keys, stride)?, v, Target::set(&mut out[at..], inner))?;
        }
        Ok(())
    }

    /// Scores to probabilities.
    fn softmax(&self, head: usize, probs: &mut [f32], stride: usize) {
        vectorized(
            #[inline(always)]
            || {
                for (query, row) in probs.chunks_exact_mut(stride).enumerate() {
                    let (row, rest) = row.split_at_mut(self.visible(query));
                    rest.fill(0.0);
                    if let Some(bias) = &self.bias {
                        let bias = &bias.values[bias.start(head, query)..][..row.len()];
                        row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                    }
                    let top = max(row);
                    row.iter_mut().for_each(|v| *v = exp(*v - top));
                    let scale = 1.0 / sum_by(row, row, |v, _| v);
                    row.iter_mut().for_each(|v| *v *= scale);
                }
            },
        );
    }

    /// The dropout factors of one head; none without dropout.
    fn factors<'s>(&self, head: usize, factors: &'s mut Vec<f32>) -> Option<&'s [f32]> {
        let mask = self.dropout.as_ref()?;
        let len = self.queries * self.keys;
        factors.resize(factors.len().max(len), 0.0);
        let factors = &mut factors[..len];
        vectorized(
            #[inline(always)]
            || mask.for_each(head * len, len, |range, drawn| factors[range].copy_from_slice(drawn)),
        );
        Some(factors)
    }

    /// `out = x * factors`, for one head.
    fn drop(&self, factors: &[f32], x: &[f32], out: &mut [f32], stride: usize) {
        vectorized(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(stride).zip(out.chunks_exact_mut(stride));
                for ((x, out), factors) in rows.zip(factors.chunks_exact(self.keys)) {
                    for ((out, x), factor) in out.iter_mut().zip(x).zip(factors) {
                        *out = x * factor;
                    }
                }
            },
        );
    }

    /// Gradients of the inputs and the bias from that of the result.
    ///
    /// # Shapes
    /// `probs`: as [`forward`](Self::forward) left them; `d_out`: `(queries, heads * d_kv)`, its rows `out_stride`
    /// elements apart.
    ///
    /// # Errors
    /// When a slice is too short for its shape.
    pub fn backward(
        &self,
        inputs: AttentionInputs<'_>,
        probs: &[f32],
        d_out: &[f32],
        out_stride: usize,
        grads: &mut AttentionGrads<'_>,
        scratch: &mut AttentionScratch,
    ) -> Result<(), GemmError> {
        let (stride, d) = (padded(self.keys), self.d_kv);
        let per_head = self.queries * stride;
        if per_head == 0 || d == 0 {
            return Ok(());
        }
        self.check_bias()?;
        let inner = self.heads * d;
        enough("q", inputs.q.len().min(grads.q.len()), self.queries, inner, inputs.q_stride)?;
        enough("k", inputs.k.len().min(grads.kv.len()), self.keys, inner, inputs.kv_stride)?;
        enough("v", inputs.v.len(), self.keys, inner, inputs.kv_stride)?;
        enough("v", grads.kv.len().saturating_sub(grads.v_start), self.keys, inner, inputs.kv_stride)?;
        enough("probs", probs.len(), 1, self.probs_len(), 0)?;
        enough("out", d_out.len(), self.queries, inner, out_stride)?;
        if let (Some(bias), Some(sums)) = (&self.bias, &grads.bias) {
            enough("bias", sums.len(), self.heads, bias.span, bias.span)?;
        }
        scratch.grow(per_head);
        let AttentionScratch { panels, first, second, factors } = scratch;
        for (head, probs) in probs.chunks_exact(per_head).take(self.heads).enumerate() {
            let at = head * d;
            let d_out = View::new(&d_out[at..], self.queries, d, out_stride)?;
            let scores = &mut first[..per_head];
            panels.pack(View::new(&inputs.v[at..], self.keys, d, inputs.kv_stride)?.t());
            product(d_out, &*panels, Target::set(scores, stride).with_padding())?;
            let factors = self.factors(head, factors);
            let weights = match factors {
                None => probs,
                Some(factors) => {
                    self.drop(factors, probs, second, stride);
                    &second[..per_head]
                }
            };
            let weights = View::new(weights, self.queries, self.keys, stride)?;
            product(weights.t(), d_out, Target::set(&mut grads.kv[grads.v_start + at..], inputs.kv_stride))?;
            self.softmax_backward(head, probs, scores, factors, grads.bias.as_deref_mut());
            let scores = View::new(scores, self.queries, self.keys, stride)?;
            let k = View::new(&inputs.k[at..], self.keys, d, inputs.kv_stride)?;
            product(scores, k, Target::set(&mut grads.q[at..], inputs.q_stride))?;
            let q = View::new(&inputs.q[at..], self.queries, d, inputs.q_stride)?;
            product(scores.t(), q, Target::set(&mut grads.kv[at..], inputs.kv_stride))?;
        }
        Ok(())
    }

    /// Turns the gradient of the dropped probabilities into that of the scores, and adds it to the bias'.
    fn softmax_backward(
        &self,
        head: usize,
        probs: &[f32],
        grads: &mut [f32],
        factors: Option<&[f32]>,
        mut bias_grad: Option<&mut [f32]>,
    ) {
        let stride = padded(self.keys);
        vectorized(
            #[inline(always)]
            || {
                for (query, (p, g)) in probs.chunks_exact(stride).zip(grads.chunks_exact_mut(stride)).enumerate() {
                    let keys = self.visible(query);
                    let (g, rest) = g.split_at_mut(keys);
                    let p = &p[..keys];
                    rest.fill(0.0);
                    if let Some(factors) = factors {
                        let factors = &factors[query * self.keys..][..keys];
                        g.iter_mut().zip(factors).for_each(|(g, factor)| *g *= factor);
                    }
                    let mean = sum_by(p, g, |p, g| p * g);
                    for (g, p) in g.iter_mut().zip(p) {
                        *g = p * (*g - mean);
                    }
                    if let (Some(bias), Some(sums)) = (&self.bias, bias_grad.as_deref_mut()) {
                        let sums = &mut sums[bias.start(head, query)..][..keys];
                        sums.iter_mut().zip(&*g).for_each(|(s, g)| *s += g);
                    }
                }
            },
        );
    }
}

/// Attention of one query to the positions up to its own, each of which lies where it was computed: beams share their
/// past instead of copying it.
///
/// # Shapes
/// `q`, `out`: `(heads * d_kv,)`; `past`: for each position the keys, then the values, of all heads; `scores`: at least
/// one element a position, overwritten.
///
/// # Panics
/// When a slice is shorter than that.
pub fn attend_past(
    heads: usize,
    d_kv: usize,
    q: &[f32],
    past: &[&[f32]],
    bias: RelativeBias<'_>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (inner, scores) = (heads * d_kv, &mut scores[..past.len()]);
    let Some(query) = past.len().checked_sub(1) else { return };
    vectorized(
        #[inline(always)]
        || {
            for head in 0..heads {
                let at = head * d_kv..(head + 1) * d_kv;
                let bias = &bias.values[bias.start(head, query)..][..past.len()];
                for ((score, position), bias) in scores.iter_mut().zip(past).zip(bias) {
                    *score = bias + sum_by(&q[at.clone()], &position[at.clone()], |a, b| a * b);
                }
                let top = max(scores);
                scores.iter_mut().for_each(|v| *v = exp(*v - top));
                let scale = 1.0 / sum_by(scores, scores, |v, _| v);
                let out = &mut out[at.clone()];
                out.fill(0.0);
                for (score, position) in scores.iter().zip(past) {
                    let weight = score * scale;
                    let values = &position[inner..][at.clone()];
                    out.iter_mut().zip(values).for_each(|(o, v)| *o += weight * v);
                }
            }
        },
    );
}
