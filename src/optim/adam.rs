//! Adam and AdamW for parameters that are stored in few bits.
//!
//! A BF16 number has 8 significant bits, so an update below 1/512 of its parameter rounds away, and late in training
//! most updates are. Kahan summation keeps what a parameter's rounding lost in a compensation of the same type and
//! offers it again with the next update. That makes 4 BF16 tensors of state and weight, 8 bytes a parameter, where an
//! F32 master copy with F32 moments takes 12 and a BF16 copy to compute with.
//!
//! The paper trains its encoder with torch-optimi, and this is its arithmetic (version 0.2.1, `_single_param_adam` in
//! `optimi/adam.py`): PyTorch computes each element-wise operation on BF16 tensors in F32 and rounds its result to
//! BF16, so this rounds at the same places. On the CPU backend parameters and compensation equal torch-optimi's bit
//! for bit in every one of the fixture's 40 steps, with and without either kind of weight decay. A backend whose
//! division or square root is not correctly rounded may differ in a last bit.

use elmo_kernels::optim::{AdamState, AdamStep, kahan_adam, settle};

use burn::{
    optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource},
    tensor::{DType, Device, Tensor},
};

/// Adam, or AdamW, with Kahan summation for BF16 and F16 parameters. Its moments have the parameter's type.
///
/// F32 parameters get plain Adam in F32.
///
/// Weight decay applies to every parameter that an instance is given. Biases and layer norms should have none: give
/// them an instance of their own, with `weight_decay` 0, through `ModuleOptimizer::with_group`.
#[derive(Clone, Debug, PartialEq)]
pub struct KahanAdam {
    /// Decay of the first moment, in `[0, 1)`.
    pub beta_1: f64,
    /// Decay of the second moment, in `[0, 1)`.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay, in the sense that `decoupled` says.
    pub weight_decay: f64,
    /// Whether weights decay by `learning rate * weight_decay` at each step (AdamW), rather than by
    /// `weight_decay * weight` in the gradient, hence through the moments (Adam with an L2 penalty).
    pub decoupled: bool,
    /// Whether parameters of less than 32 bits get a compensation; without effect on others.
    pub kahan: bool,
}

impl KahanAdam {
    /// Adam with torch-optimi's defaults: betas 0.9 and 0.99, epsilon 1e-6, no weight decay.
    pub fn adam() -> Self {
        Self { beta_1: 0.9, beta_2: 0.99, epsilon: 1e-6, weight_decay: 0.0, decoupled: false, kahan: true }
    }

    /// What the arithmetic needs at a parameter's step `time`, from 1.
    pub(super) fn at(&self, learning_rate: f64, time: usize) -> AdamStep {
        AdamStep {
            learning_rate,
            beta_1: debiased(self.beta_1, time),
            beta_2: debiased(self.beta_2, time),
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            decoupled: self.decoupled,
        }
    }

    /// Whether parameters of this type get a compensation.
    pub(super) fn compensates(&self, dtype: DType) -> bool {
        self.kahan && super::can_be_compensated(dtype)
    }

    /// AdamW with torch-optimi's defaults: as [`adam`](Self::adam), with a decoupled weight decay of 0.01.
    pub fn adamw() -> Self {
        Self { weight_decay: 0.01, decoupled: true, ..Self::adam() }
    }
}

/// What [`KahanAdam`] remembers of one parameter. All tensors have its shape and type.
#[derive(Clone, Debug)]
pub struct KahanAdamState<const D: usize> {
    /// Steps made.
    pub time: usize,
    /// Moving average of the gradient, already without its bias towards 0.
    pub moment_1: Tensor<D>,
    /// Moving average of the squared gradient, likewise.
    pub moment_2: Tensor<D>,
    /// What rounding has kept from the parameter so far; `None` without Kahan summation.
    pub compensation: Option<Tensor<D>>,
}

impl Optimizer for KahanAdam {
    type State<const D: usize> = KahanAdamState<D>;

    /// The parameter and its state one step later. `grad` has the shape of `tensor`; it is rounded to its type.
    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (tensor, state) = match state {
            Some(state) => (tensor, state),
            None => {
                let [moment_1, moment_2] = [(); 2].map(|()| settle(tensor.zeros_like()));
                (settle(tensor), KahanAdamState { time: 0, moment_1, moment_2, compensation: None })
            }
        };
        let KahanAdamState { time, moment_1, moment_2, compensation } = state;
        let time = time + 1;
        // A state from training without compensation starts with none lost.
        let compensated = self.compensates(tensor.dtype());
        let compensation = compensated.then(|| compensation.unwrap_or_else(|| settle(tensor.zeros_like())));
        let step = self.at(lr, time);
        let state = AdamState { parameter: tensor, moment_1, moment_2, compensation };
        let AdamState { parameter, moment_1, moment_2, compensation } = kahan_adam(state, grad, step);
        (parameter, Some(KahanAdamState { time, moment_1, moment_2, compensation }))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        KahanAdamState {
            time: state.time,
            moment_1: state.moment_1.to_device(device),
            moment_2: state.moment_2.to_device(device),
            compensation: state.compensation.map(|lost| lost.to_device(device)),
        }
    }
}

/// The `beta` whose moving average after `time` steps is Adam's bias-corrected one: 0 at the first step.
fn debiased(beta: f64, time: usize) -> f64 {
    let power = beta.powf(time as f64);
    (power - beta) / (power - 1.0)
}

// By hand, because `#[derive(RecordState)]` of Burn 0.22.1 names paths that only exist inside burn-optim.
impl<const D: usize> RecordState for KahanAdamState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, "time", self.time.into());
        out.push_tensor(prefix, "moment_1", self.moment_1.to_data());
        out.push_tensor(prefix, "moment_2", self.moment_2.to_data());
        if let Some(compensation) = &self.compensation {
            out.push_tensor(prefix, "compensation", compensation.to_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let mut tensor = |leaf| {
            let data = src.take_tensor(prefix, leaf)?;
            let dtype = data.dtype();
            // Not the device's default type: a state has the type of its parameter.
            Some(settle(Tensor::from_data(data, (device, dtype))))
        };
        Some(Self {
            moment_1: tensor("moment_1")?,
            moment_2: tensor("moment_2")?,
            compensation: tensor("compensation"),
            time: src.take_scalar(prefix, "time")?.try_into().ok()?,
        })
    }
}
