//! From the vectors of a text's tokens to the vector of the text.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use elmo_kernels::encoder::{self as kernels, Dropout, MeanCall};
use serde::{Deserialize, Serialize};

use super::{Inputs, TransformerConfig};

/// How the vectors of a text's tokens become one vector. A text without tokens has zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// The mean of the last layer's vectors.
    #[default]
    LastHiddenAvg,
    /// The same, where the first token counts once, the second twice, and so on.
    LastHiddenWeightedAvg,
    /// The vectors that the last layers have for the first token, one behind the other, that of the last layer first.
    LastNhiddenConlast,
}

/// What comes behind the layers of an encoder: pooling, and the bottleneck layer.
///
/// Written without what is the default, which was all that there was at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// How the vectors of a text's tokens become one vector.
    #[serde(skip_serializing_if = "is_default")]
    pub pool_mode: PoolMode,
    /// The last layers that are pooled; more than one for [`PoolMode::LastNhiddenConlast`] only.
    #[serde(skip_serializing_if = "is_one")]
    pub feature_layers: usize,
    /// The width behind a linear layer that follows, if there is one.
    #[serde(skip_serializing_if = "is_default")]
    pub bottleneck_size: Option<usize>,
}

impl Default for Output {
    fn default() -> Self {
        Self { pool_mode: PoolMode::default(), feature_layers: 1, bottleneck_size: None }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

impl Output {
    /// The keys that it has in a file.
    pub(super) const KEYS: [&str; 3] = ["pool_mode", "feature_layers", "bottleneck_size"];

    /// The width of what pooling gives.
    pub(super) fn pooled(&self, transformer: &TransformerConfig) -> usize {
        self.feature_layers * transformer.hidden_size
    }

    /// The first field that does not go with the transformer: its name, what was expected, what is there.
    pub(super) fn violation(&self, transformer: &TransformerConfig) -> Option<(&'static str, String, String)> {
        // The embeddings count as one more layer.
        let most = match self.pool_mode {
            PoolMode::LastNhiddenConlast => transformer.num_hidden_layers + 1,
            _ => 1,
        };
        if !(1..=most).contains(&self.feature_layers) {
            let expected = match most {
                1 => "1, but with pool_mode = last_nhidden_conlast".into(),
                _ => format!("from 1 to {most} (the encoder's layers, and its embeddings)"),
            };
            return Some(("feature_layers", expected, self.feature_layers.to_string()));
        }
        let narrow = self.bottleneck_size.filter(|size| !(1..=1 << 20).contains(size));
        narrow.map(|size| ("bottleneck_size", "from 1 to 1048576".into(), size.to_string()))
    }
}

/// One vector a text, of `hidden`: the tokens' vectors of the last layers, the last one first.
pub(super) fn pool(mode: PoolMode, mut hidden: Vec<Tensor<2>>, inputs: &Inputs, dropout: Dropout) -> Tensor<2> {
    match mode {
        PoolMode::LastHiddenAvg => mean(hidden.swap_remove(0), inputs, dropout),
        PoolMode::LastHiddenWeightedAvg => {
            let hidden = hidden.swap_remove(0);
            let dtype = hidden.dtype();
            let weights = column(places(inputs), &hidden.device());
            mean(hidden.cast(DType::F32) * weights, inputs, dropout).cast(dtype)
        }
        PoolMode::LastNhiddenConlast => {
            let device = hidden[0].device();
            // Texts of one token: their means are these tokens, and there dropout is the same as in all other modes.
            let firsts: Vec<&[u32]> =
                inputs.starts.windows(2).map(|text| if text[0] < text[1] { &[0][..] } else { &[] }).collect();
            let firsts = Inputs::of_texts(&firsts, &device);
            let rows = first_rows(inputs, firsts.layout.rows());
            let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [firsts.layout.rows()]), &device);
            let layers = hidden.into_iter().map(|layer| layer.select(0, rows.clone())).collect();
            mean(Tensor::cat(layers, 1), &firsts, dropout)
        }
    }
}

fn mean(hidden: Tensor<2>, inputs: &Inputs, dropout: Dropout) -> Tensor<2> {
    let [_, dim] = hidden.dims();
    kernels::mean(hidden, inputs.words.clone(), MeanCall { texts: inputs.layout, dim, dropout })
}

/// What each row is multiplied by for the mean of a text to be the weighted one: of `n` tokens the one in place `p`,
/// from 1, has the weight `p / (1 + ... + n)`, and the mean gives it `1 / n`.
fn places(inputs: &Inputs) -> Vec<f32> {
    let mut weights = vec![0.0; inputs.layout.rows()];
    for text in inputs.starts.windows(2) {
        let tokens = &mut weights[text[0] as usize..text[1] as usize];
        let after = (tokens.len() + 1) as f32;
        for (place, weight) in (1u32..).zip(tokens) {
            *weight = 2.0 * place as f32 / after;
        }
    }
    weights
}

/// The row of the first token of every text that has one; then, up to `rows`, some row that is there.
fn first_rows(inputs: &Inputs, rows: usize) -> Vec<i32> {
    let texts = inputs.starts.windows(2).filter(|text| text[0] < text[1]);
    let mut firsts: Vec<i32> = texts.map(|text| text[0] as i32).collect();
    firsts.resize(rows, 0);
    firsts
}

fn column(values: Vec<f32>, device: &Device) -> Tensor<2> {
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows, 1]), (device, DType::F32))
}
