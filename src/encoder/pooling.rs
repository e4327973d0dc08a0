//! From the vectors of a text's tokens to one vector.

use burn::tensor::{Bool, FloatDType, Tensor};

use super::accumulation_dtype;

/// The mean of the vectors at real tokens (`mask` true); zero for a row that has none.
///
/// The name is the reference implementation's: the average over the encoder's last hidden state.
/// The sum is taken in 32 bits or more, and the result has the type of `hidden`.
///
/// # Shapes
///
/// - hidden: `[batch, tokens, width]`
/// - mask: `[batch, tokens]`
/// - output: `[batch, width]`
pub fn last_hidden_avg(hidden: Tensor<3>, mask: Tensor<2, Bool>) -> Tensor<2> {
    let dtype: FloatDType = hidden.dtype().into();
    let wide = accumulation_dtype(hidden.dtype());
    let [batch, tokens, width] = hidden.dims();
    let weights = Tensor::<2>::zeros([batch, tokens], (&hidden.device(), wide.into())).mask_fill(mask, 1.0);
    let count = weights.clone().sum_dim(1).clamp_min(1.0);
    let sum = (hidden.cast(wide) * weights.unsqueeze_dim(2)).sum_dim(1);
    (sum.reshape([batch, width]) / count).cast(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn averages_the_real_tokens_of_each_row() {
        let device = Device::flex();
        let hidden = Tensor::<3>::from_data(
            [
                [[1.0, 2.0], [3.0, 6.0], [50.0, 60.0]],
                [[7.0, 8.0], [9.0, 9.0], [9.0, 9.0]],
                [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],
            ],
            &device,
        );
        let mask = Tensor::from_data([[true, true, false], [true, false, false], [false, false, false]], &device);
        last_hidden_avg(hidden, mask)
            .to_data()
            .assert_eq(&TensorData::from([[2.0f32, 4.0], [7.0, 8.0], [0.0, 0.0]]), true);
    }

    #[test]
    fn sums_in_32_bits() {
        // In BF16 a sum of ones stops at 256.
        let device = Device::flex();
        let ones = Tensor::<3>::ones([1, 1000, 1], &device).cast(FloatDType::BF16);
        let mask = Tensor::<2, Bool>::full([1, 1000], true, &device);
        let mean = last_hidden_avg(ones, mask);
        assert_eq!(FloatDType::from(mean.dtype()), FloatDType::BF16);
        assert_eq!(mean.cast(FloatDType::F32).into_scalar::<f32>(), 1.0);
    }
}
