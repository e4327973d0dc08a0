//! The encoder.
mod activation;
mod bert;
mod pooling;
pub use activation::Activation;
pub use bert::{Bert, BertConfig};
pub use pooling::last_hidden_avg;
use burn::tensor::{DType, FloatDType};

/// The type to compute in where 16 bits would lose too much.
fn accumulation_dtype(dtype: DType) -> FloatDType {
    match dtype {
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}
