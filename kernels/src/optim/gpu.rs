//! The operation on GPUs: one kernel, from one source for all of them.

use burn::backend::{cubecl::dtype_to_storage_type, tensor::FloatTensor};
use burn::tensor::DType;
use burn_cubecl::{
    CubeBackend,
    kernel::{cast, into_contiguous},
    tensor::CubeTensor,
};
use cubecl::{calculate_cube_count_elemwise, ir::ElemType, prelude::*};

use super::{AdamStep, AdamTensors, Decay, OptimizerOps};
use crate::{
    gpu::{LINEAR, memory::exclusive},
    timing::{Grain, timed},
};

/// Bytes of an access, at most.
const ACCESS: usize = 16;

impl OptimizerOps for CubeBackend {
    fn kahan_adam(
        state: AdamTensors<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamTensors<Self> {
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
            compensation: exclusive(compensation),
        };
        let gradient = cast(into_contiguous(gradient), dtype);
        timed(Grain::Operations, "kahan_adam", &gradient.client, || launch(&state, &gradient, &step, compensated));
        state
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

fn launch(state: &AdamTensors<CubeBackend>, gradient: &CubeTensor, step: &AdamStep, compensated: bool) {
    let AdamTensors { parameter, moment_1, moment_2, compensation } = state;
    let client = &gradient.client;
    let length = parameter.meta.shape().num_elements();
    let widest = ACCESS / parameter.dtype.size();
    let all = [parameter, moment_1, moment_2, gradient];
    let compensations = compensated.then_some(compensation);
    let numbers =
        if all.into_iter().chain(compensations).all(|tensor| divides(widest, length, tensor)) { widest } else { 1 };
    let vectors = length / numbers;
    // Where there is none, any live buffer of the length is bound.
    let compensation_or_any = if compensated { compensation } else { moment_1 };
    let factors = step.factors();
    // SAFETY: every access is within the length of all tensors; the compensation is left alone where there is none.
    unsafe {
        update::launch_unchecked(
            client,
            calculate_cube_count_elemwise(client, vectors, LINEAR),
            LINEAR,
            numbers,
            parameter.clone().into_buffer_arg(),
            moment_1.clone().into_buffer_arg(),
            moment_2.clone().into_buffer_arg(),
            compensation_or_any.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            vectors,
            FactorArgsLaunch {
                decay: factors.decay,
                change: factors.change,
                keep: factors.keep,
                add: factors.add,
                rate: factors.rate,
                epsilon: factors.epsilon,
            },
            Rules { decay: step.decay(), compensated },
            dtype_to_storage_type(parameter.dtype),
        );
    }
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

/// A unit takes one vector of each tensor; `length` is in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn update<F: Float, N: Size>(
    parameter: &mut [Vector<F, N>],
    moment_1: &mut [Vector<F, N>],
    moment_2: &mut [Vector<F, N>],
    compensation: &mut [Vector<F, N>],
    gradient: &[Vector<F, N>],
    length: usize,
    factors: &FactorArgs,
    #[comptime] rules: Rules,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < length {
        let mut weight = Vector::<f32, N>::cast_from(parameter[at]);
        let mut slope = Vector::<f32, N>::cast_from(gradient[at]);
        let decay = Vector::<f32, N>::new(factors.decay);
        if comptime!(rules.decay == Decay::Parameter) {
            weight = rounded::<F, N>(weight * decay);
        } else if comptime!(rules.decay == Decay::Gradient) {
            slope = rounded::<F, N>(slope + weight * decay);
        }

        let first = Vector::<f32, N>::cast_from(moment_1[at]);
        let new_1 = Vector::<F, N>::cast_from(first + (slope - first) * Vector::<f32, N>::new(factors.change));
        moment_1[at] = new_1;
        let second = Vector::<f32, N>::cast_from(moment_2[at]);
        let kept = rounded::<F, N>(second * Vector::<f32, N>::new(factors.keep));
        let new_2 = Vector::<F, N>::cast_from(kept + slope * Vector::<f32, N>::new(factors.add) * slope);
        moment_2[at] = new_2;

        let root = rounded::<F, N>(Vector::<f32, N>::cast_from(new_2).sqrt());
        let below = rounded::<F, N>(root + Vector::<f32, N>::new(factors.epsilon));
        let change = Vector::<f32, N>::cast_from(new_1) * Vector::<f32, N>::new(factors.rate) / below;
        if comptime!(rules.compensated) {
            let due = rounded::<F, N>(Vector::<f32, N>::cast_from(compensation[at]) + change);
            let next = Vector::<F, N>::cast_from(weight + due);
            parameter[at] = next;
            // Not `due - (next - weight)`: this rounds as the composed step does.
            let gone = rounded::<F, N>(weight - Vector::<f32, N>::cast_from(next));
            compensation[at] = Vector::<F, N>::cast_from(due + gone);
        } else {
            parameter[at] = Vector::<F, N>::cast_from(weight + change);
        }
    }
}
