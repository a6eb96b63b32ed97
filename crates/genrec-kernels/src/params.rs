//! Named trainable variables and their gradients, both sorted by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Result, Tensor, Var, backprop::GradStore};

use rayon::prelude::*;

use crate::cuda::on_device;
use crate::host;
use crate::pool::in_pool;

/// What is wrong with a set of named tensors that is to replace a model's parameters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// A parameter has no counterpart among the given tensors.
    #[error("the tensor `{name}` is missing; the file was written by another model or configuration")]
    Missing {
        /// Name of the parameter.
        name: String,
    },
    /// A given tensor belongs to no parameter.
    #[error("the tensor `{name}` belongs to no parameter; the file was written by another model or configuration")]
    Unexpected {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than its parameter.
    #[error(
        "the tensor `{name}` has shape {got:?}, the parameter has {expected:?}; load it with the configuration it was written with"
    )]
    Shape {
        /// Name of the parameter.
        name: String,
        /// Shape of the parameter.
        expected: Vec<usize>,
        /// Shape of the given tensor.
        got: Vec<usize>,
    },
    /// A tensor holds integers.
    #[error("the tensor `{name}` holds {got}, but must hold floating-point numbers; another program wrote the file")]
    Type {
        /// Name of the parameter.
        name: String,
        /// Type of the given tensor.
        got: String,
    },
    /// A tensor holds NaN or an infinity.
    #[error("the tensor `{name}` holds a value that is not finite; restore an earlier checkpoint")]
    NotFinite {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that counts holds something else.
    #[error("the tensor `{name}` holds {found}, but must hold one i64 of at least 0; restore an earlier checkpoint")]
    Count {
        /// Name of the tensor.
        name: String,
        /// What it holds.
        found: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Named trainable variables, iterated in the order of their names.
///
/// candle's own `VarMap` iterates in hash order, which makes every sum over parameters, and so every
/// training run, depend on it; this map does not. Cloning shares the variables.
///
/// The variables change through this type and the optimisers alone, and every change gives them a new
/// [`version`](Self::version), so that what is derived from them can be kept until then. A tensor handed out here shows
/// the current values; it must not be written to.
#[derive(Clone, Debug)]
pub struct Parameters {
    vars: BTreeMap<String, Var>,
    device: Device,
    version: Arc<AtomicU64>,
}

impl Parameters {
    /// An empty set of variables on `device`.
    pub fn new(device: &Device) -> Self {
        Self { vars: BTreeMap::new(), device: device.clone(), version: Arc::default() }
    }

    /// The device of every variable.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Makes a variable from a tensor's values and gives it a name; a variable of that name is replaced.
    ///
    /// # Errors
    /// When the tensor cannot be copied to the device.
    pub fn insert(&mut self, name: impl Into<String>, value: &Tensor) -> Result<Tensor> {
        // Detached: of a tensor that is a variable already, `Var` would share the values.
        let var = Var::from_tensor(&value.detach().to_device(&self.device)?.contiguous()?)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.into(), var);
        self.touch();
        Ok(tensor)
    }

    /// Whether both hold the same variables, as clones do.
    pub fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.version, &other.version)
    }

    /// A number that is new after every change of a value, for all clones alike.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Says that values were changed in place.
    pub(crate) fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Replaces one value.
    ///
    /// # Errors
    /// [`ParamError`] when there is no such parameter, or the tensor has another shape.
    pub fn set(&self, name: &str, value: &Tensor) -> std::result::Result<(), ParamError> {
        let var = self.vars.get(name).ok_or_else(|| ParamError::Unexpected { name: name.to_owned() })?;
        if value.dims() != var.dims() {
            return Err(ParamError::Shape {
                name: name.to_owned(),
                expected: var.dims().to_vec(),
                got: value.dims().to_vec(),
            });
        }
        var.set(&value.detach().to_device(&self.device)?.to_dtype(var.dtype())?.contiguous()?)?;
        self.touch();
        Ok(())
    }

    /// The variable of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.vars.get(name).map(Var::as_tensor)
    }

    /// Names and variables, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var.as_tensor()))
    }

    /// Number of variables.
    pub fn len(&self) -> usize {
        self.vars.len()
    }

    /// Whether there is no variable.
    pub fn is_empty(&self) -> bool {
        self.vars.is_empty()
    }

    /// Number of trainable scalars over all variables.
    pub fn num_elements(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    /// A copy of every value, by name, that later training steps do not change.
    ///
    /// # Errors
    /// When a tensor cannot be copied.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?))).collect()
    }

    /// Replaces every value. Names, shapes, types and finiteness are checked before anything is changed.
    ///
    /// # Errors
    /// [`ParamError`] names the first tensor that is missing, superfluous, of another shape, of integers or not finite.
    pub fn restore(&self, values: &BTreeMap<String, Tensor>) -> std::result::Result<(), ParamError> {
        if let Some(name) = values.keys().find(|name| !self.vars.contains_key(*name)) {
            return Err(ParamError::Unexpected { name: name.clone() });
        }
        for (name, var) in &self.vars {
            let value = values.get(name).ok_or_else(|| ParamError::Missing { name: name.clone() })?;
            if value.dims() != var.dims() {
                return Err(ParamError::Shape {
                    name: name.clone(),
                    expected: var.dims().to_vec(),
                    got: value.dims().to_vec(),
                });
            }
            if !value.dtype().is_float() {
                return Err(ParamError::Type { name: name.clone(), got: format!("{:?}", value.dtype()) });
            }
            // A sum is not finite as soon as one term is not.
            let total = value.to_dtype(candle_core::DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            if !total.is_finite() {
                return Err(ParamError::NotFinite { name: name.clone() });
            }
        }
        for (name, var) in &self.vars {
            var.set(&values[name].to_device(&self.device)?.to_dtype(var.dtype())?.contiguous()?)?;
        }
        self.touch();
        Ok(())
    }
}

/// Gradients of a loss with respect to [`Parameters`], by the same names and in the same order.
#[derive(Clone, Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl Gradients {
    /// Reads the gradient of every parameter out of candle's store.
    ///
    /// # Errors
    /// When a parameter has no gradient: some operation between it and the loss has no backward.
    pub fn from_store(params: &Parameters, store: &GradStore) -> Result<Self> {
        params
            .iter()
            .map(|(name, var)| match store.get(var) {
                Some(grad) => Ok((name.to_owned(), grad.clone())),
                None => candle_core::bail!(
                    "the parameter `{name}` got no gradient: an operation between it and the loss has no backward"
                ),
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The gradient of the parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Sets the gradient of a parameter.
    pub fn insert(&mut self, name: impl Into<String>, grad: Tensor) {
        self.0.insert(name.into(), grad);
    }

    /// Names and gradients, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, grad)| (name.as_str(), grad))
    }

    /// Number of gradients.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no gradient.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Multiplies every gradient by `factor`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        if self.0.values().all(|grad| host::fused(&[grad])) {
            let factor = factor as f32;
            let scaled = |grad: &Tensor| {
                host::read(grad, |values| {
                    let scaled = host::blocks(values.len(), |start, out| {
                        out.iter_mut().zip(&values[start..]).for_each(|(out, value)| *out = factor * value);
                    });
                    host::tensor(scaled, grad)
                })
            };
            return in_pool(|| {
                self.0.par_iter_mut().try_for_each(|(_, grad)| {
                    *grad = scaled(grad)?;
                    Ok(())
                })
            });
        }
        for grad in self.0.values_mut() {
            *grad = grad.affine(factor, 0.0)?;
        }
        Ok(())
    }

    /// Euclidean norm over all gradients together.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn global_norm(&self) -> Result<f64> {
        let in_kernels = |grad: &Tensor| on_device(grad.device()) && grad.dtype() == DType::F32;
        if let Some(first) = self.0.values().next()
            && self.0.values().all(in_kernels)
        {
            let sums = crate::optim::squares(self.0.values(), first.device())?.to_vec1::<f32>()?;
            return Ok(sums.into_iter().map(f64::from).sum::<f64>().sqrt());
        }
        if self.0.values().all(|grad| host::fused(&[grad])) {
            let squares = |(_, grad)| host::read(grad, |values| Ok(host::sum_of_squares(values)));
            let sums: Vec<f64> = in_pool(|| self.0.par_iter().map(squares).collect::<Result<_>>())?;
            return Ok(sums.into_iter().sum::<f64>().sqrt());
        }
        let sums: Vec<Tensor> =
            self.0.values().map(|grad| grad.sqr()?.sum_all()?.to_dtype(DType::F32)).collect::<Result<_>>()?;
        if sums.is_empty() {
            return Ok(0.0);
        }
        // One transfer for all of them: each one waits for the device.
        let total: f64 = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).sum();
        Ok(total.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_no_weights() {
        let mut params = Parameters::new(&Device::Cpu);
        params.insert("w", &Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let of = |dtype| BTreeMap::from([("w".to_owned(), Tensor::ones(2, dtype, &Device::Cpu).unwrap())]);
        let error = params.restore(&of(DType::U32)).unwrap_err();
        assert!(matches!(&error, ParamError::Type { name, got } if name == "w" && got == "U32"), "{error}");
        params.restore(&of(DType::BF16)).unwrap();
    }

    #[test]
    fn a_variable_inserted_again_is_a_copy() {
        let mut params = Parameters::new(&Device::Cpu);
        let first = params.insert("first", &Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let second = params.insert("second", &first).unwrap();
        let version = params.version();
        params.clone().set("second", &Tensor::ones(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_ne!(params.version(), version);
        assert_eq!(second.to_vec1::<f32>().unwrap(), [1.0, 1.0]);
        assert!(params.set("second", &first.narrow(0, 0, 1).unwrap()).is_err());
        assert!(params.set("third", &first).is_err());
        assert_eq!(first.to_vec1::<f32>().unwrap(), [0.0, 0.0]);
        assert_eq!(params.get("second").unwrap().to_vec1::<f32>().unwrap(), [1.0, 1.0]);
    }
}
