//! One training pass through the encoder: forward, then backward from the gradient of the embedding.
//!
//! Whoever trains sees two calls and plain tensors; that autodiff does the work stays in here.
//! On a CPU, Burn runs most operations on one core. So a batch is cut in two by rows there: each half goes through the
//! encoder and back on a thread of its own.

use std::thread;

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};

use super::{Encoder, Inputs, dropout::seeded};
use crate::device::is_cpu;

/// Rows that are worth a thread.
const MIN_PART_ROWS: usize = 8;
/// Every part has a gradient of the whole encoder. Not the number of cores, on which the result would depend.
const MAX_PARTS: usize = 2;

/// A batch on its way through the encoder: made by [`Encoder::forward_train`], finished by
/// [`backward`](Self::backward).
pub struct Pass {
    /// `[batch, dim]`, off the autodiff graph: the embedding of every row, dropout included.
    pub embedding: Tensor<2>,
    /// The rows in order; each part has a graph of its own.
    parts: Vec<Part>,
}

struct Part {
    encoder: Encoder,
    embedding: Tensor<2>,
}

impl Encoder {
    /// The embedding of every row with dropout, and what the backward pass needs.
    ///
    /// The dropout is a function of `key`, so that a step can be repeated. It is the same on every device, but for the
    /// second half of a batch that is cut in two on a CPU.
    ///
    /// # Panics
    /// If there are more tokens than the encoder has positions, or its parameters are not on an autodiff device.
    pub fn forward_train(&self, inputs: Inputs, key: u64) -> Pass {
        let device = inputs.device();
        let count = match is_cpu(&device) {
            true => inputs.rows().div_ceil(MIN_PART_ROWS).min(MAX_PARTS),
            false => 1,
        };
        let inputs = inputs.cut(count).into_iter().enumerate();
        // Forks share the weights and have a graph of their own, so that no thread waits for another's.
        let inputs = inputs.map(|(part, inputs)| (part, self.clone().fork(&device), inputs));
        let parts = on_threads(inputs.collect(), |(part, encoder, inputs)| {
            let embedding = seeded(key.wrapping_add(part as u64), || encoder.forward(inputs));
            Part { encoder, embedding }
        });
        let whole = parts.iter().map(|part| part.embedding.clone().inner()).collect();
        Pass { embedding: Tensor::cat(whole, 0), parts }
    }
}

impl Pass {
    /// The gradients of the encoder's parameters.
    ///
    /// # Shapes
    /// - `gradient`: `[batch, dim]`, of the loss by [`embedding`](Self::embedding); of any float type
    pub fn backward(self, gradient: Tensor<2>) -> GradientsParams {
        let mut from = 0;
        let parts = self.parts.into_iter().map(|part| {
            let [rows, dim] = part.embedding.dims();
            let gradient = gradient.clone().slice([from..from + rows, 0..dim]);
            from += rows;
            (part, gradient)
        });
        let mut parts = on_threads(parts.collect(), |(part, gradient)| {
            let Part { encoder, embedding } = part;
            let gradient = Tensor::from_inner(gradient.cast(embedding.dtype()));
            // A scalar whose gradient by the embedding is the one given.
            let surrogate = (embedding * gradient).sum();
            let gradients = GradientsParams::from_grads(surrogate.backward(), &encoder);
            (encoder, gradients)
        });
        if parts.len() == 1 {
            return parts.remove(0).1;
        }
        let mut sum = GradientsAccumulator::new();
        for (encoder, gradients) in parts {
            sum.accumulate(&encoder, gradients);
        }
        sum.grads()
    }
}

/// Runs `f` on every item, on a thread each but for the first.
///
/// Not on the thread pool: while a task waits for the matrix product it has begun, the pool would start another part on
/// the same thread, inside the first one's locks.
fn on_threads<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut items = items.into_iter();
    let first = items.next();
    thread::scope(|scope| {
        let threads: Vec<_> = items.map(|item| scope.spawn(|| f(item))).collect();
        let first = first.map(&f);
        let others = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        first.into_iter().chain(others).collect()
    })
}
