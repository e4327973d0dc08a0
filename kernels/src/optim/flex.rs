//! The operation on Burn's CPU backend: plain loops over blocks of the tensors' own memory.

use burn::backend::{Flex, flex::FlexTensor, ops::FloatTensorOps, tensor::FloatTensor};
use burn::tensor::DType;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{AdamBatch, AdamStep, AdamTensors, Decay, Factors, GradientBatch, OptimizerOps};

/// Numbers that a thread takes at a time.
const BLOCK: usize = 1 << 13;

/// A type that parameters are stored in.
trait Stored: Copy + Send + Sync {
    fn of(tensor: &FlexTensor) -> &[Self];
    fn of_mut(tensor: &mut FlexTensor) -> &mut [Self];
    fn wide(self) -> f32;
    fn rounded(value: f32) -> Self;
}

macro_rules! stored {
    ($number:ty, $wide:expr, $rounded:expr) => {
        impl Stored for $number {
            fn of(tensor: &FlexTensor) -> &[Self] {
                tensor.storage()
            }

            fn of_mut(tensor: &mut FlexTensor) -> &mut [Self] {
                tensor.storage_mut()
            }

            #[inline(always)]
            fn wide(self) -> f32 {
                $wide(self)
            }

            #[inline(always)]
            fn rounded(value: f32) -> Self {
                $rounded(value)
            }
        }
    };
}

stored!(f32, |value| value, |value| value);
stored!(f16, f16::to_f32, f16::from_f32);
stored!(bf16, bf16::to_f32, bf16::from_f32);

impl OptimizerOps for Flex {
    fn kahan_adam(
        state: AdamTensors<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamTensors<Self> {
        let dtype = state.parameter.dtype();
        // Moved into place, not borrowed: a second handle would make every write a copy.
        let state = AdamTensors {
            parameter: whole(state.parameter),
            moment_1: whole(state.moment_1),
            moment_2: whole(state.moment_2),
            compensation: whole(state.compensation),
        };
        let gradient = whole(Self::float_cast(gradient, dtype.into()));
        match dtype {
            DType::F32 => update::<f32>(state, &gradient, &step, compensated),
            DType::F16 => update::<f16>(state, &gradient, &step, compensated),
            DType::BF16 => update::<bf16>(state, &gradient, &step, compensated),
            other => panic!("parameters of the type {other:?} cannot be optimized"),
        }
    }

    fn kahan_adam_batch(
        states: AdamBatch<Self>,
        gradients: GradientBatch<Self>,
        step: AdamStep,
        compensated: bool,
    ) -> AdamBatch<Self> {
        let work = states.zip(gradients);
        AdamBatch::from_array(work.map(|(state, gradient)| Self::kahan_adam(state, gradient, step, compensated)))
    }

    /// As it is: the host's allocator does not mind.
    fn settle(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor
    }
}

/// The tensor as all of its memory.
fn whole(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

fn update<T: Stored>(
    mut state: AdamTensors<Flex>,
    gradient: &FlexTensor,
    step: &AdamStep,
    compensated: bool,
) -> AdamTensors<Flex> {
    let (decay, factors) = (step.decay(), step.factors());
    let parameter = T::of_mut(&mut state.parameter);
    let blocks = parameter.len().div_ceil(BLOCK);
    let compensation: Vec<Option<&mut [T]>> = match compensated {
        true => T::of_mut(&mut state.compensation).chunks_mut(BLOCK).map(Some).collect(),
        false => (0..blocks).map(|_| None).collect(),
    };
    parameter
        .par_chunks_mut(BLOCK)
        .zip(T::of_mut(&mut state.moment_1).par_chunks_mut(BLOCK))
        .zip(T::of_mut(&mut state.moment_2).par_chunks_mut(BLOCK))
        .zip(T::of(gradient).par_chunks(BLOCK))
        .zip(compensation)
        .for_each(|((((parameter, moment_1), moment_2), gradient), compensation)| {
            let moments = moment_1.iter_mut().zip(moment_2).zip(gradient);
            let rows = parameter.iter_mut().zip(moments);
            match compensation {
                Some(compensation) => {
                    for ((parameter, ((moment_1, moment_2), gradient)), lost) in rows.zip(compensation) {
                        let (kept, change) = moved(parameter, moment_1, moment_2, *gradient, decay, &factors);
                        let due = T::rounded(lost.wide() + change).wide();
                        *parameter = T::rounded(kept + due);
                        let gone = T::rounded(kept - parameter.wide()).wide();
                        *lost = T::rounded(due + gone);
                    }
                }
                None => {
                    for (parameter, ((moment_1, moment_2), gradient)) in rows {
                        let (kept, change) = moved(parameter, moment_1, moment_2, *gradient, decay, &factors);
                        *parameter = T::rounded(kept + change);
                    }
                }
            }
        });
    state
}

/// Moves the moments; gives the parameter after decay, and what is to be added to it.
#[inline(always)]
fn moved<T: Stored>(
    parameter: &T,
    moment_1: &mut T,
    moment_2: &mut T,
    gradient: T,
    decay: Decay,
    factors: &Factors,
) -> (f32, f32) {
    let round = |value: f32| T::rounded(value).wide();
    let mut parameter = parameter.wide();
    let mut gradient = gradient.wide();
    match decay {
        Decay::Nowhere => {}
        Decay::Parameter => parameter = round(parameter * factors.decay),
        Decay::Gradient => gradient = round(gradient + parameter * factors.decay),
    }
    let first = moment_1.wide();
    *moment_1 = T::rounded(first + (gradient - first) * factors.change);
    *moment_2 = T::rounded(round(moment_2.wide() * factors.keep) + gradient * factors.add * gradient);
    let root = round(moment_2.wide().sqrt());
    (parameter, moment_1.wide() * factors.rate / round(root + factors.epsilon))
}
