//! The moments of every parameter: allocation, update, and the way to and from named tensors.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::device::{Slot, blank};
use crate::cuda::on_device;
use crate::host;
use crate::params::{Gradients, ParamError, Parameters};
use crate::pool::in_pool;

/// Name of the tensor that counts the steps taken.
const STEP: &str = "step";

/// The values of one moment: a host vector where the fused update runs, a tensor elsewhere.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Host(Vec<f32>),
    Device(Tensor),
}

/// One moment of one parameter.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    name: &'static str,
    dims: Vec<usize>,
    pub(super) values: Values,
}

/// What a rule asks for: a moment's name, shape and initial value.
pub(super) struct MomentSpec {
    pub(super) name: &'static str,
    pub(super) dims: Vec<usize>,
    pub(super) initial: f64,
}

/// The arithmetic of an optimiser, without the book-keeping.
pub(super) trait Rule: Sync {
    /// The moments of a parameter of that shape, in the order in which the updates receive them.
    fn moments(&self, dims: &[usize]) -> Vec<MomentSpec>;

    /// One step over host values; `step` counts from 1.
    fn update_host(&self, dims: &[usize], step: u64, lr: f64, param: &mut [f32], grad: &[f32], m: &mut [Vec<f32>]);

    /// The same step on tensors. Returns the new parameter; replaces the moments.
    fn update_tensor(&self, step: u64, lr: f64, param: &Tensor, grad: &Tensor, m: &mut [Tensor]) -> Result<Tensor>;

    /// Whether [`update_at_once`](Self::update_at_once) can move a parameter of that shape.
    fn at_once(&self, dims: &[usize]) -> bool;

    /// The same step on all parameters, in `f32` on a GPU: overwrites the parameters and writes the new moments.
    fn update_at_once(&self, step: u64, lr: f64, slots: &[Slot<'_>], device: &Device) -> Result<()>;
}

#[derive(Clone, Debug)]
pub(super) struct State {
    step: u64,
    device: Device,
    moments: BTreeMap<String, Vec<Moment>>,
}

/// Whether these are the moments that the rule asks of this parameter.
fn fit(moments: &[Moment], specs: &[MomentSpec], var: &Tensor) -> bool {
    let placed = |values: &Values| match values {
        Values::Host(_) => fused(var),
        Values::Device(tensor) => {
            !fused(var) && tensor.dtype() == var.dtype() && tensor.device().same_device(var.device())
        }
    };
    moments.len() == specs.len() && moments.iter().zip(specs).all(|(m, spec)| m.dims == spec.dims && placed(&m.values))
}

fn fused(var: &Tensor) -> bool {
    var.device().is_cpu() && var.dtype() == DType::F32 && !on_device(var.device())
}

impl State {
    pub(super) fn new(rule: &impl Rule, params: &Parameters) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, var) in params.iter() {
            let made = rule.moments(var.dims()).into_iter().map(|spec| {
                let values = if fused(var) {
                    Values::Host(vec![spec.initial as f32; spec.dims.iter().product()])
                } else {
                    let zeros = Tensor::zeros(spec.dims.as_slice(), var.dtype(), var.device())?;
                    Values::Device(zeros.affine(1.0, spec.initial)?)
                };
                Ok(Moment { name: spec.name, dims: spec.dims, values })
            });
            moments.insert(name.to_owned(), made.collect::<Result<Vec<_>>>()?);
        }
        Ok(Self { step: 0, device: params.device().clone(), moments })
    }

    pub(super) fn step(&mut self, rule: &impl Rule, params: &Parameters, grads: &Gradients, lr: f64) -> Result<()> {
        for (name, var) in params.iter() {
            let Some(grad) = grads.get(name) else {
                bail!("the parameter `{name}` has no gradient; compute one for every parameter before the step")
            };
            let same_device = grad.device().same_device(var.device());
            if grad.dims() != var.dims() || grad.dtype() != var.dtype() || !same_device {
                bail!(
                    "the gradient of `{name}` is {:?} {:?} on {:?}, the parameter {:?} {:?} on {:?}; they must agree",
                    grad.dtype(),
                    grad.dims(),
                    grad.device().location(),
                    var.dtype(),
                    var.dims(),
                    var.device().location()
                )
            }
            let Some(moments) = self.moments.get(name) else {
                bail!("the optimiser was not built for the parameter `{name}`; build it from the same parameters")
            };
            if !fit(moments, &rule.moments(var.dims()), var) {
                bail!(
                    "the optimiser was built for a parameter `{name}` of another shape, type or device than {:?} {:?} on {:?}; build it from the same parameters",
                    var.dtype(),
                    var.dims(),
                    var.device().location()
                )
            }
        }
        self.step += 1;
        // Before as well as after: an error between leaves some parameters changed.
        params.touch();
        if self.at_once(rule, params) {
            self.step_at_once(rule, params, grads, lr)?;
            params.touch();
            return Ok(());
        }
        let step = self.step;
        let moved = |(name, moments): (&String, &mut Vec<Moment>)| -> Result<()> {
            if let (Some(var), Some(grad)) = (params.get(name), grads.get(name))
                && let Some(new) = update(rule, step, lr, var, grad, moments)?
            {
                params.set(name, &new).map_err(candle_core::Error::wrap)?;
            }
            Ok(())
        };
        if params.iter().all(|(_, var)| fused(var)) {
            in_pool(|| self.moments.par_iter_mut().try_for_each(moved))?;
        } else {
            self.moments.iter_mut().try_for_each(moved)?;
        }
        params.touch();
        Ok(())
    }

    /// Whether the rule moves all parameters by launches of their own.
    fn at_once(&self, rule: &impl Rule, params: &Parameters) -> bool {
        let fits = |var: &Tensor| var.dtype() == DType::F32 && var.is_contiguous() && rule.at_once(var.dims());
        on_device(&self.device) && params.iter().all(|(_, var)| fits(var))
    }

    /// A step whose shapes have been checked. The old moments stay as they are until it is done: a clone may share them.
    fn step_at_once(&mut self, rule: &impl Rule, params: &Parameters, grads: &Gradients, lr: f64) -> Result<()> {
        let mut slots = Vec::with_capacity(params.len());
        for (name, param) in params.iter() {
            let (Some(grad), Some(moments)) = (grads.get(name), self.moments.get(name)) else { continue };
            let old = moments.iter().map(|moment| match &moment.values {
                Values::Device(tensor) => tensor.contiguous(),
                Values::Host(_) => {
                    bail!("the optimiser was built for parameters on the CPU; build it again after a move")
                }
            });
            let old = old.collect::<Result<_>>()?;
            slots.push(Slot { param, grad: grad.detach().contiguous()?, old, new: Vec::new() });
        }
        let shapes: Vec<&[usize]> = slots.iter().flat_map(|slot| &slot.old).map(|tensor| tensor.dims()).collect();
        let mut blank = blank(&shapes, &self.device)?.into_iter();
        for slot in &mut slots {
            slot.new = blank.by_ref().take(slot.old.len()).collect();
        }
        rule.update_at_once(self.step, lr, &slots, &self.device)?;
        for ((name, _), slot) in params.iter().zip(slots) {
            for (moment, tensor) in self.moments.get_mut(name).into_iter().flatten().zip(slot.new) {
                moment.values = Values::Device(tensor);
            }
        }
        Ok(())
    }

    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        let step = i64::try_from(self.step).unwrap_or(i64::MAX);
        tensors.insert(STEP.to_owned(), Tensor::new(step, &Device::Cpu)?);
        for (param, moments) in &self.moments {
            for moment in moments {
                let tensor = match &moment.values {
                    Values::Host(values) => Tensor::from_slice(values, moment.dims.as_slice(), &Device::Cpu)?,
                    // Not a copy: that would hold the moments of all parameters, among which these lie.
                    Values::Device(tensor) => tensor.force_contiguous()?,
                };
                tensors.insert(format!("{}.{param}", moment.name), tensor);
            }
        }
        Ok(tensors)
    }

    pub(super) fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> std::result::Result<(), ParamError> {
        let mut loaded = self.clone();
        let mut known = vec![STEP.to_owned()];
        let step = tensors.get(STEP).ok_or_else(|| ParamError::Missing { name: STEP.to_owned() })?;
        loaded.step = step_count(step)?;
        for (param, moments) in &mut loaded.moments {
            for moment in moments {
                let name = format!("{}.{param}", moment.name);
                let tensor = tensors.get(&name).ok_or_else(|| ParamError::Missing { name: name.clone() })?;
                if tensor.dims() != moment.dims {
                    return Err(ParamError::Shape { name, expected: moment.dims.clone(), got: tensor.dims().to_vec() });
                }
                match &mut moment.values {
                    Values::Host(values) => *values = host_values(tensor)?,
                    Values::Device(current) => {
                        *current = tensor.to_dtype(current.dtype())?.to_device(&self.device)?.copy()?;
                    }
                }
                if !host_values(tensor)?.iter().all(|v| v.is_finite()) {
                    return Err(ParamError::NotFinite { name });
                }
                known.push(name);
            }
        }
        if let Some(name) = tensors.keys().find(|name| !known.contains(name)) {
            return Err(ParamError::Unexpected { name: name.clone() });
        }
        *self = loaded;
        Ok(())
    }
}

/// The number of steps that a state says were taken.
fn step_count(step: &Tensor) -> std::result::Result<u64, ParamError> {
    let name = || STEP.to_owned();
    if step.elem_count() != 1 {
        return Err(ParamError::Shape { name: name(), expected: vec![], got: step.dims().to_vec() });
    }
    if step.dtype() != DType::I64 {
        return Err(ParamError::Count { name: name(), found: format!("a value of type {}", step.dtype().as_str()) });
    }
    let count = step.reshape(())?.to_scalar::<i64>()?;
    u64::try_from(count).map_err(|_| ParamError::Count { name: name(), found: count.to_string() })
}

fn host_values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()
}

/// Updates the moments, and the parameter in place or else by the value returned.
fn update(
    rule: &impl Rule,
    step: u64,
    lr: f64,
    var: &Tensor,
    grad: &Tensor,
    moments: &mut [Moment],
) -> Result<Option<Tensor>> {
    if fused(var) {
        let mut taken: Vec<Vec<f32>> = moments
            .iter_mut()
            .map(|m| match &mut m.values {
                Values::Host(values) => std::mem::take(values),
                Values::Device(_) => Vec::new(),
            })
            .collect();
        let dims = var.dims().to_vec();
        let result = update_copy(var, grad, |param, grad| {
            rule.update_host(&dims, step, lr, param, grad, &mut taken);
        });
        for (moment, values) in moments.iter_mut().zip(taken) {
            moment.values = Values::Host(values);
        }
        return result.map(|()| None);
    }
    let mut taken = Vec::with_capacity(moments.len());
    for moment in moments.iter() {
        match &moment.values {
            Values::Device(tensor) => taken.push(tensor.clone()),
            Values::Host(_) => bail!("the optimiser was built for parameters on the CPU; build it again after a move"),
        }
    }
    let new = rule.update_tensor(step, lr, &var.detach(), &grad.detach(), &mut taken)?;
    for (moment, tensor) in moments.iter_mut().zip(taken) {
        moment.values = Values::Device(tensor.detach());
    }
    Ok(Some(new))
}

/// Runs `f(parameter, gradient)` over a copy of the host values of a contiguous `f32` variable, which then takes its place.
///
/// The variable is not locked while `f` runs in parallel: a thread that waits for others may pick up work that reads it,
/// and would wait for itself.
fn update_copy(var: &Tensor, grad: &Tensor, f: impl FnOnce(&mut [f32], &[f32])) -> Result<()> {
    struct Replace(RefCell<Vec<f32>>);
    impl InplaceOp1 for Replace {
        fn name(&self) -> &'static str {
            "optimizer-step"
        }
        fn cpu_fwd(&self, dst: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let CpuStorage::F32(dst) = dst else { bail!("the fused optimiser step takes f32 values") };
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("the fused optimiser step takes contiguous values")
            };
            let mut new = self.0.borrow_mut();
            if (start, end) == (0, dst.len()) {
                std::mem::swap(dst, &mut new);
            } else {
                dst[start..end].copy_from_slice(&new);
            }
            Ok(())
        }
    }
    let mut param = host::read(var, |values| Ok(values.to_vec()))?;
    host::read(grad, |grad| {
        f(&mut param, grad);
        Ok(())
    })?;
    var.inplace_op1(&Replace(RefCell::new(param)))
}
