//! Stochastic gradient descent with momentum, for parameters that are stored in few bits.
//!
//! The arithmetic is torch-optimi's (version 0.2.1, `_single_param_sgd` in `optimi/sgd.py`) on the CPU, where PyTorch's
//! `add_(tensor, alpha)` rounds `alpha`, its product with the tensor, and the sum to the parameter's type. On the CPU
//! backend parameters and compensation equal torch-optimi's bit for bit in every one of the fixture's 40 steps. It is
//! composed of tensor operations, unlike [`KahanAdam`](super::KahanAdam), which has a kernel of its own.

use burn::{
    optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource},
    tensor::{DType, Device, Tensor},
};

/// SGD, with momentum if there is any, and with Kahan summation for BF16 and F16 parameters.
///
/// Weight decay applies to every parameter that an instance is given, as an L2 penalty in the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct KahanSgd {
    /// What the sum of gradients keeps of itself at each step, in `[0, 1)`; 0 for plain gradients.
    pub momentum: f64,
    /// Added to the gradient times the parameter.
    pub weight_decay: f64,
    /// Whether parameters of less than 32 bits get a compensation; without effect on others.
    pub kahan: bool,
}

/// What [`KahanSgd`] remembers of one parameter. All tensors have its shape and type.
#[derive(Clone, Debug)]
pub struct KahanSgdState<const D: usize> {
    /// Sum of gradients; `None` without momentum.
    pub sum: Option<Tensor<D>>,
    /// What rounding has kept from the parameter so far; `None` without Kahan summation.
    pub compensation: Option<Tensor<D>>,
}

impl Optimizer for KahanSgd {
    type State<const D: usize> = KahanSgdState<D>;

    /// The parameter and its state one step later. `grad` has the shape of `tensor`; it is rounded to its type.
    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let dtype = tensor.dtype();
        let wide = |tensor: &Tensor<D>| tensor.clone().cast(DType::F32);
        let rounded = |tensor: Tensor<D>| tensor.cast(dtype);
        let device = tensor.device();
        let times = |tensor: &Tensor<D>, factor: f64| {
            let factor = Tensor::<D>::full([1; D], factor, (&device, dtype));
            wide(&rounded(wide(tensor) * wide(&factor)))
        };
        let KahanSgdState { sum, compensation } = state.unwrap_or(KahanSgdState { sum: None, compensation: None });

        let mut grad = grad.cast(dtype);
        if self.weight_decay != 0.0 {
            grad = rounded(wide(&grad) + times(&tensor, self.weight_decay));
        }
        let sum = (self.momentum != 0.0).then(|| match sum {
            Some(sum) => {
                // `mul_` does not round its factor.
                let kept = rounded(wide(&sum) * self.momentum);
                rounded(wide(&kept) + wide(&grad))
            }
            None => grad.clone(),
        });
        let update = times(sum.as_ref().unwrap_or(&grad), -lr);
        let compensated = self.kahan && super::can_be_compensated(dtype);
        if !compensated {
            return (rounded(wide(&tensor) + update), Some(KahanSgdState { sum, compensation: None }));
        }
        // A state from training without compensation starts with none lost.
        let lost = compensation.unwrap_or_else(|| tensor.zeros_like());
        let lost = rounded(wide(&lost) + update);
        let parameter = rounded(wide(&tensor) + wide(&lost));
        let moved = rounded(wide(&tensor) - wide(&parameter));
        let lost = rounded(wide(&lost) + wide(&moved));
        (parameter, Some(KahanSgdState { sum, compensation: Some(lost) }))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        KahanSgdState {
            sum: state.sum.map(|sum| sum.to_device(device)),
            compensation: state.compensation.map(|lost| lost.to_device(device)),
        }
    }
}

// By hand, as for `KahanAdamState`.
impl<const D: usize> RecordState for KahanSgdState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        // A state without tensors is one too.
        out.push_scalar(prefix, "momentum", usize::from(self.sum.is_some()).into());
        for (leaf, tensor) in [("sum", &self.sum), ("compensation", &self.compensation)] {
            if let Some(tensor) = tensor {
                out.push_tensor(prefix, leaf, tensor.to_data());
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        src.take_scalar(prefix, "momentum")?;
        let mut tensor = |leaf| {
            let data = src.take_tensor(prefix, leaf)?;
            let dtype = data.dtype();
            // Not the device's default type: a state has the type of its parameter.
            Some(Tensor::from_data(data, (device, dtype)))
        };
        Some(Self { sum: tensor("sum"), compensation: tensor("compensation") })
    }
}
