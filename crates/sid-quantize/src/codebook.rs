//! Greedy residual coding over codebooks, and the checks of what goes in.

use candle_core::{DType, Device, Error, Result, Tensor};
use genrec_kernels::host;
use genrec_kernels::nearest::{nearest_codes, residual_codes};
use ndarray::ArrayView2;

use crate::encoder::prepared;

/// A host block as a tensor on the device.
pub(crate) fn to_tensor(rows: ArrayView2<'_, f32>, device: &Device) -> Result<Tensor> {
    let flat = match rows.as_slice() {
        Some(slice) => slice.to_vec(),
        None => rows.iter().copied().collect(),
    };
    Tensor::from_vec(flat, rows.dim(), device)
}

/// Checks that a batch of embeddings has the width and type a quantiser takes.
pub(crate) fn check_input(xs: &Tensor, dim: usize) -> Result<()> {
    let (_, got) = xs.dims2()?;
    if got != dim {
        candle_core::bail!("embeddings have {got} columns, the quantiser takes {dim}");
    }
    if xs.dtype() != candle_core::DType::F32 {
        candle_core::bail!("embeddings hold {:?}, the quantiser takes f32", xs.dtype());
    }
    Ok(())
}

/// Greedy residual codes of each row: at every level the nearest codeword is taken and subtracted.
///
/// # Shapes
/// - `xs`: `(n, d)`; each codebook `(k, d)`; result `(n, levels)`, u32
pub(crate) fn encode_residual<'a>(xs: &Tensor, codebooks: impl IntoIterator<Item = &'a Tensor>) -> Result<Tensor> {
    let codebooks: Vec<&Tensor> = codebooks.into_iter().collect();
    let on_host = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32;
    if on_host(xs) && codebooks.iter().all(|codebook| on_host(codebook)) {
        return encode_on_host(xs, &codebooks);
    }
    let mut residual = xs.clone();
    let mut codes = Vec::new();
    let mut codebooks = codebooks.into_iter().peekable();
    while let Some(codebook) = codebooks.next() {
        let level = nearest_codes(&residual, codebook)?;
        if codebooks.peek().is_some() {
            residual = (residual - codebook.index_select(&level, 0)?)?;
        }
        codes.push(level);
    }
    Tensor::stack(&codes, 1)
}

/// All levels of a block of rows while it lies in the cache.
fn encode_on_host(xs: &Tensor, codebooks: &[&Tensor]) -> Result<Tensor> {
    let (rows, _) = xs.dims2()?;
    let prepared = codebooks.iter().map(|codebook| prepared(codebook)).collect::<Result<Vec<_>>>()?;
    let mut codes = vec![0; rows * prepared.len()];
    host::read(xs, |xs| residual_codes(xs, &prepared, &mut codes).map_err(Error::wrap))?;
    Tensor::from_vec(codes, (rows, prepared.len()), &Device::Cpu)
}

/// The sum of each row's codewords.
///
/// # Shapes
/// - `codes`: `(n, levels)`, u32; each codebook `(k, d)`; result `(n, d)`
pub(crate) fn decode_residual(codes: &Tensor, codebooks: &[&Tensor]) -> Result<Tensor> {
    let (_, levels) = codes.dims2()?;
    if levels != codebooks.len() {
        candle_core::bail!("codes have {levels} levels, the quantiser has {}", codebooks.len());
    }
    let mut sum: Option<Tensor> = None;
    for (level, codebook) in codebooks.iter().enumerate() {
        let column = codes.narrow(1, level, 1)?.flatten_all()?.contiguous()?;
        let words = codebook.index_select(&column, 0)?;
        sum = Some(match sum {
            Some(sum) => (sum + words)?,
            None => words,
        });
    }
    sum.ok_or_else(|| candle_core::Error::Msg("a quantiser needs at least one level".to_owned()))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn residual_codes_agree_with_brute_force(
            xs in prop::collection::vec(-4_i8..4, 5 * 3),
            books in prop::collection::vec(-4_i8..4, 2 * 6 * 3),
        ) {
            // Small integers: every distance is exact in f32, ties included.
            let float = |v: &[i8]| v.iter().map(|&x| f32::from(x)).collect::<Vec<_>>();
            let tensor = Tensor::from_vec(float(&xs), (5, 3), &Device::Cpu).unwrap();
            let first = Tensor::from_vec(float(&books[..18]), (6, 3), &Device::Cpu).unwrap();
            let second = Tensor::from_vec(float(&books[18..]), (6, 3), &Device::Cpu).unwrap();
            let codes = encode_residual(&tensor, [&first, &second]).unwrap();
            let wide = encode_residual(
                &tensor.to_dtype(DType::F64).unwrap(),
                [&first.to_dtype(DType::F64).unwrap(), &second.to_dtype(DType::F64).unwrap()],
            ).unwrap();
            let decoded = decode_residual(&codes, &[&first, &second]).unwrap().to_vec2::<f32>().unwrap();
            let codes = codes.to_vec2::<u32>().unwrap();
            prop_assert_eq!(&wide.to_vec2::<u32>().unwrap(), &codes);
            for (row, x) in xs.chunks(3).enumerate() {
                let mut residual: Vec<i32> = x.iter().map(|&x| i32::from(x)).collect();
                for level in 0..2 {
                    let book: Vec<&[i8]> = books[level * 18..][..18].chunks(3).collect();
                    let distance = |e: &[i8]| residual.iter().zip(e).map(|(r, &e)| (r - i32::from(e)).pow(2)).sum::<i32>();
                    let best = (0..6).min_by_key(|&k| distance(book[k])).unwrap();
                    prop_assert_eq!(codes[row][level] as usize, best);
                    for (r, &e) in residual.iter_mut().zip(book[best]) {
                        *r -= i32::from(e);
                    }
                }
                for ((x, r), near) in x.iter().zip(&residual).zip(&decoded[row]) {
                    prop_assert_eq!((i32::from(*x) - r) as f32, *near);
                }
            }
        }
    }

    #[test]
    fn codes_outside_a_codebook_are_refused() {
        let book = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
        let codes = Tensor::new(&[[4_u32]], &Device::Cpu).unwrap();
        assert!(decode_residual(&codes, &[&book]).is_err());
        assert!(decode_residual(&codes, &[&book, &book]).is_err());
    }
}
