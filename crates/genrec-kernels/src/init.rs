//! Seeded initial values of weights.
//!
//! candle draws its own from generators that cannot be seeded on the CPU; these come from a [`CounterRng`] on the host,
//! so a seed gives the same weights on every device.

use candle_core::{Device, Result, Shape, Tensor};

use crate::rng::CounterRng;

/// Normal values of mean 0 and standard deviation `std`, `f32`.
///
/// ```
/// # use candle_core::{Device, Result};
/// # fn main() -> Result<()> {
/// use genrec_kernels::{CounterRng, init};
///
/// let weight = init::normal(&CounterRng::new(1).named("shared"), (32, 8), 0.05, &Device::Cpu)?;
/// assert_eq!(weight.dims(), [32, 8]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the tensor cannot be made on the device.
pub fn normal(rng: &CounterRng, shape: impl Into<Shape>, std: f64, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let mut values = vec![0f32; shape.elem_count()];
    rng.fill_normal(&mut values);
    let std = std as f32;
    values.iter_mut().for_each(|v| *v *= std);
    Tensor::from_vec(values, shape, device)
}

/// Uniform values in `[low, high)`, `f32`.
///
/// # Errors
/// When the tensor cannot be made on the device.
pub fn uniform(rng: &CounterRng, shape: impl Into<Shape>, low: f64, high: f64, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let mut values = vec![0f32; shape.elem_count()];
    rng.fill_uniform(&mut values);
    values.iter_mut().for_each(|v| *v = (low + f64::from(*v) * (high - low)) as f32);
    Tensor::from_vec(values, shape, device)
}

/// Uniform values in `±1 / sqrt(fan_in)`: what PyTorch gives `nn.Linear`, weight and bias alike.
///
/// # Errors
/// When the tensor cannot be made on the device.
pub fn linear_uniform(rng: &CounterRng, shape: impl Into<Shape>, fan_in: usize, device: &Device) -> Result<Tensor> {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    uniform(rng, shape, -bound, bound, device)
}

/// Xavier's normal initialisation: standard deviation `sqrt(2 / (fan_in + fan_out))`
/// (Glorot and Bengio, AISTATS 2010).
///
/// # Shapes
/// Returns `(fan_out, fan_in)`, the layout of a linear layer's weight.
///
/// # Errors
/// When the tensor cannot be made on the device.
pub fn xavier_normal(rng: &CounterRng, fan_out: usize, fan_in: usize, device: &Device) -> Result<Tensor> {
    let std = (2.0 / (fan_in + fan_out).max(1) as f64).sqrt();
    normal(rng, (fan_out, fan_in), std, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_bounds() -> Result<()> {
        let rng = CounterRng::new(2);
        let std = |t: &Tensor| -> Result<f32> { t.sqr()?.mean_all()?.sqrt()?.to_scalar() };
        let t = normal(&rng, (300, 200), 0.02, &Device::Cpu)?;
        assert!((std(&t)? - 0.02).abs() < 3e-4, "{}", std(&t)?);
        let t = xavier_normal(&rng, 300, 100, &Device::Cpu)?;
        assert!((std(&t)? - 0.0707).abs() < 1e-3, "{}", std(&t)?);
        let t = linear_uniform(&rng, (50, 100), 100, &Device::Cpu)?;
        let values = t.flatten_all()?.to_vec1::<f32>()?;
        assert!(values.iter().all(|v| v.abs() <= 0.1));
        assert!(values.iter().any(|v| *v > 0.09) && values.iter().any(|v| *v < -0.09));
        let t = uniform(&rng, 1000, 2.0, 3.0, &Device::Cpu)?;
        assert!(t.to_vec1::<f32>()?.iter().all(|v| (2.0..=3.0).contains(v)));
        Ok(())
    }
}
