//! The operation on GPUs: one kernel, from one source for all of them.

use burn::backend::{cubecl::dtype_to_storage_type, tensor::FloatTensor};
use burn::tensor::DType;
use burn_cubecl::{
    CubeBackend,
    kernel::{cast, into_contiguous},
    tensor::CubeTensor,
};
use cubecl::{ir::ElemType, prelude::*};

use super::{AdamBatch, AdamStep, AdamTensors, Decay, GradientBatch, OptimizerOps};
use crate::{
    gpu::{cube_number, cubes, memory::exclusive},
    timing::{Grain, timed},
};

/// Bytes of an access, at most.
const ACCESS: usize = 16;
/// Units of a cube.
const UNITS: u32 = 256;

impl OptimizerOps for CubeBackend {
    fn kahan_adam(
        state: AdamTensors<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamTensors<Self> {
        let work = [Work::new(state, gradient, compensated)];
        launch(&work, &step, compensated);
        let [Work { state, .. }] = work;
        state
    }

    fn kahan_adam_batch(
        states: AdamBatch<Self>,
        gradients: GradientBatch<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamBatch<Self> {
        let work = states.zip(gradients).map(|(state, gradient)| Work::new(state, gradient, compensated));
        // Elsewhere a kernel may have as few as eight buffers.
        if work[0].gradient.client.properties().identity.fingerprint.starts_with("ptx") {
            launch(&work, &step, compensated);
        } else {
            work.chunks(1).for_each(|one| launch(one, &step, compensated));
        }
        AdamBatch::from_array(work.map(|work| work.state))
    }

    fn settle(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        let tensor = into_contiguous(tensor);
        tensor.client.memory_persistent_allocation(&tensor, CubeTensor::copy)
    }
}

/// What the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rules {
    decay: Decay,
    compensated: bool,
}

/// [`Factors`](super::Factors) on their way into the kernel.
#[derive(CubeType, CubeLaunch)]
struct FactorArgs {
    decay: f32,
    change: f32,
    keep: f32,
    add: f32,
    rate: f32,
    epsilon: f32,
}

/// A parameter that has its step before it: contiguous tensors that nobody else holds, and a gradient of their type.
struct Work {
    state: AdamTensors<CubeBackend>,
    gradient: CubeTensor,
}

impl Work {
    fn new(state: AdamTensors<CubeBackend>, gradient: CubeTensor, compensated: bool) -> Self {
        let AdamTensors { parameter, moment_1, moment_2, compensation } = state;
        let dtype = parameter.dtype;
        assert!(
            matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
            "parameters of the type {dtype:?} cannot be optimized"
        );
        let state = AdamTensors {
            parameter: exclusive(parameter),
            moment_1: exclusive(moment_1),
            moment_2: exclusive(moment_2),
            compensation: if compensated { exclusive(compensation) } else { compensation },
        };
        Self { state, gradient: cast(into_contiguous(gradient), dtype) }
    }

    fn length(&self) -> usize {
        self.state.parameter.meta.shape().num_elements()
    }

    /// Whether all are whole vectors of so many numbers.
    fn divides(&self, numbers: usize, compensated: bool) -> bool {
        let AdamTensors { parameter, moment_1, moment_2, compensation } = &self.state;
        let all = [parameter, moment_1, moment_2, &self.gradient];
        let compensation = compensated.then_some(compensation);
        all.into_iter().chain(compensation).all(|tensor| divides(numbers, self.length(), tensor))
    }
}

/// One launch for all of these, which have one type.
fn launch(work: &[Work], step: &AdamStep, compensated: bool) {
    let client = &work[0].gradient.client;
    let dtype = work[0].gradient.dtype;
    let widest = ACCESS / dtype.size();
    let numbers = if work.iter().all(|work| work.divides(widest, compensated)) { widest } else { 1 };
    let mut end = 0;
    let slots = work
        .iter()
        .map(|work| {
            let AdamTensors { parameter, moment_1, moment_2, compensation } = &work.state;
            let vectors = work.length() / numbers;
            end += vectors.div_ceil(UNITS as usize);
            let buffer = |tensor: &CubeTensor| tensor.clone().into_buffer_arg();
            SlotLaunch::new(
                buffer(parameter),
                buffer(moment_1),
                buffer(moment_2),
                // Where there is none, any live buffer of the length is bound.
                buffer(if compensated { compensation } else { moment_1 }),
                buffer(&work.gradient),
                vectors as u32,
                end as u32,
            )
        })
        .collect();
    let factors = step.factors();
    let factors = FactorArgsLaunch {
        decay: factors.decay,
        change: factors.change,
        keep: factors.keep,
        add: factors.add,
        rate: factors.rate,
        epsilon: factors.epsilon,
    };
    let rules = Rules { decay: step.decay(), compensated };
    timed(Grain::Operations, "kahan_adam", client, || {
        // SAFETY: every access is within the vectors of its tensor; the compensation is left alone where there is none.
        unsafe {
            update::launch_unchecked(
                client,
                cubes(end, 1),
                CubeDim::new_1d(UNITS),
                numbers,
                slots,
                factors,
                rules,
                dtype_to_storage_type(dtype),
            );
        }
    });
}

/// Whether a tensor of `length` numbers is whole vectors of `numbers`, each where an access of its size may begin.
fn divides(numbers: usize, length: usize, tensor: &CubeTensor) -> bool {
    let begins = tensor.handle.offset_start.unwrap_or(0) as usize;
    length.is_multiple_of(numbers) && begins.is_multiple_of(numbers * tensor.dtype.size())
}

/// What a number would be had it been stored.
#[cube]
fn rounded<F: Float, N: Size>(value: Vector<f32, N>) -> Vector<f32, N> {
    Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(value))
}

/// What belongs to one parameter.
#[derive(CubeType, CubeLaunch)]
struct Slot<F: Float, N: Size> {
    parameter: Box<[Vector<F, N>]>,
    moment_1: Box<[Vector<F, N>]>,
    moment_2: Box<[Vector<F, N>]>,
    compensation: Box<[Vector<F, N>]>,
    gradient: Box<[Vector<F, N>]>,
    /// Vectors of each of them.
    vectors: u32,
    /// The first cube that is not for this parameter nor for one before it.
    end: u32,
}

/// A unit takes one vector of each tensor of one parameter.
#[cube(launch_unchecked)]
fn update<F: Float, N: Size>(
    slots: &mut Sequence<Slot<F, N>>,
    factors: &FactorArgs,
    #[comptime] rules: Rules,
    #[define(F)] _dtype: ElemType,
) {
    let cube = cube_number();
    let mut first = 0u32.runtime();
    #[unroll]
    for at in 0..slots.len() {
        let slot = slots.index_mut(at);
        let end = slot.end;
        if cube >= first && cube < end {
            let vector = (cube - first) * UNITS + UNIT_POS;
            if vector < slot.vectors {
                step_of::<F, N>(slot, vector as usize, factors, rules);
            }
        }
        first = end;
    }
}

#[cube]
fn step_of<F: Float, N: Size>(slot: &mut Slot<F, N>, at: usize, factors: &FactorArgs, #[comptime] rules: Rules) {
    let mut weight = Vector::<f32, N>::cast_from(slot.parameter[at]);
    let mut slope = Vector::<f32, N>::cast_from(slot.gradient[at]);
    let decay = Vector::<f32, N>::new(factors.decay);
    if comptime!(rules.decay == Decay::Parameter) {
        weight = rounded::<F, N>(weight * decay);
    } else if comptime!(rules.decay == Decay::Gradient) {
        slope = rounded::<F, N>(slope + weight * decay);
    }

    let first = Vector::<f32, N>::cast_from(slot.moment_1[at]);
    let new_1 = Vector::<F, N>::cast_from(first + (slope - first) * Vector::<f32, N>::new(factors.change));
    slot.moment_1[at] = new_1;
    let second = Vector::<f32, N>::cast_from(slot.moment_2[at]);
    let kept = rounded::<F, N>(second * Vector::<f32, N>::new(factors.keep));
    let new_2 = Vector::<F, N>::cast_from(kept + slope * Vector::<f32, N>::new(factors.add) * slope);
    slot.moment_2[at] = new_2;

    let root = rounded::<F, N>(Vector::<f32, N>::cast_from(new_2).sqrt());
    let below = rounded::<F, N>(root + Vector::<f32, N>::new(factors.epsilon));
    let change = Vector::<f32, N>::cast_from(new_1) * Vector::<f32, N>::new(factors.rate) / below;
    if comptime!(rules.compensated) {
        let due = rounded::<F, N>(Vector::<f32, N>::cast_from(slot.compensation[at]) + change);
        let next = Vector::<F, N>::cast_from(weight + due);
        slot.parameter[at] = next;
        // Not `due - (next - weight)`: this rounds as the composed step does.
        let gone = rounded::<F, N>(weight - Vector::<f32, N>::cast_from(next));
        slot.compensation[at] = Vector::<F, N>::cast_from(due + gone);
    } else {
        slot.parameter[at] = Vector::<F, N>::cast_from(weight + change);
    }
}
