//! One layer forward and backward: its kernels in their order, and what lives between them.

use std::cell::Cell;

use burn::tensor::{DType, Shape};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::{
    super::{
        ops::{Forward, LayerGradients},
        problem::{Dropout, Kept, LayerCall},
        weights::{Affine, LayerWeights, Norm},
    },
    attention::Attention,
    product::{Epilogue, Layout, Matrix, Operands, product},
    rows::{ActivationBackward, NormBackward, NormForward, activate, column_sums, join_columns, split_columns},
};
use crate::{
    gpu::memory::empty,
    timing::{Grain, timed},
};

/// A layer's call on tensors of one type, all contiguous.
pub struct Layer<'a> {
    pub x: &'a CubeTensor,
    pub weights: &'a LayerWeights<CubeBackend>,
    pub texts: &'a CubeTensor,
    pub call: &'a LayerCall,
}

/// What a layer keeps, in its places.
struct Parts {
    qkv: CubeTensor,
    before_activation: CubeTensor,
    /// Absent where nothing is kept.
    kept: Option<KeptParts>,
}

struct KeptParts {
    attention_sum: CubeTensor,
    sum: CubeTensor,
    attention_statistics: CubeTensor,
    statistics: CubeTensor,
}

impl Layer<'_> {
    /// The layer's result, and what its backward pass needs.
    pub fn forward(&self) -> Forward<CubeBackend> {
        let LayerWeights { query, key, value, output, attention_norm, up, down, norm } = self.weights;
        let (dim, wide) = (self.call.dim, self.call.wide);
        let layout = self.call.kept(self.x.dtype.size());
        let kept = empty(self.x, layout.words(), DType::F32);
        let parts = self.parts(&kept, &layout);

        let rows = self.call.texts.rows();
        let space = Carving::new(self.x, &[dim * 3 * dim, 3 * dim, rows * dim, rows * dim, rows * wide]);
        let joined = self.joined([&query.weight, &key.weight, &value.weight], &space);
        let joined_bias = space.take([3 * dim]);
        self.timed("join", || join_columns([&query.bias, &key.bias, &value.bias], &joined_bias));
        self.timed("qkv", || {
            self.affine(self.x, dim, &joined, &parts.qkv, 3 * dim, Epilogue::Bias(&joined_bias));
        });

        let context = space.take([rows, dim]);
        self.timed("attention", || self.attention().forward(&parts.qkv, &context));
        let update = space.take([rows, dim]);
        self.timed("output", || self.affine(&context, dim, &output.weight, &update, dim, Epilogue::Store));
        // In the place of what is not needed any more.
        let normed = context;
        self.timed("norm", || {
            NormForward {
                residual: self.x,
                update: &update,
                bias: &output.bias,
                gamma: &attention_norm.gamma,
                beta: &attention_norm.beta,
                sum: parts.kept.as_ref().map(|kept| &kept.attention_sum),
                y: &normed,
                statistics: parts.kept.as_ref().map(|kept| &kept.attention_statistics),
                rows: self.call.texts.rows(),
                width: dim,
                epsilon: self.call.epsilon,
                dropout: self.call.attention,
            }
            .launch()
        });

        self.timed("up", || {
            self.affine(&normed, dim, &up.weight, &parts.before_activation, wide, Epilogue::Bias(&up.bias))
        });
        let values = space.take([rows, wide]);
        self.timed("activation", || activate(&parts.before_activation, &values, self.call.activation));
        self.timed("down", || self.affine(&values, wide, &down.weight, &update, dim, Epilogue::Store));
        let y = self.empty(dim);
        self.timed("norm", || {
            NormForward {
                residual: &normed,
                update: &update,
                bias: &down.bias,
                gamma: &norm.gamma,
                beta: &norm.beta,
                sum: parts.kept.as_ref().map(|kept| &kept.sum),
                y: &y,
                statistics: parts.kept.as_ref().map(|kept| &kept.statistics),
                rows: self.call.texts.rows(),
                width: dim,
                epsilon: self.call.epsilon,
                dropout: self.call.feed_forward,
            }
            .launch()
        });
        Forward { y, kept }
    }

    /// The gradients, from that of the layer's result.
    pub fn backward(&self, gradient: CubeTensor, kept: CubeTensor) -> LayerGradients<CubeBackend> {
        let LayerWeights { query, key, value, output, attention_norm, up, down, norm } = self.weights;
        let (dim, wide) = (self.call.dim, self.call.wide);
        let layout = LayerCall { keep: true, ..*self.call }.kept(self.x.dtype.size());
        let parts = self.parts(&kept, &layout);
        let sums = parts.kept.expect("a layer that goes back has kept all");
        drop(kept);

        let rows = self.call.texts.rows();
        // Of the four square weights, the two of the feed-forward half, the vectors as long as a row, and `up`'s bias.
        let own = [[dim * dim; 4].as_slice(), &[dim * wide; 2], &[dim; 9], &[wide]].concat();
        let own = Carving::new(self.x, &own);
        let (first, second) = (wide.max(3 * dim), wide.max(4 * dim));
        let drops = self.call.feed_forward.is_active() || self.call.attention.is_active();
        let dropped = if drops { rows * dim } else { 0 };
        let sizes = [rows * dim, dropped, rows * first, rows * second, dim * 3 * dim, dim * 3 * dim];
        let space = Carving::new(self.x, &sizes);
        let sum_gradient = space.take([rows, dim]);
        let dropped = drops.then(|| space.take([rows, dim]));
        // Where the gradient by an update goes if some of it was dropped; else it is that by the sum.
        let apart = |dropout: Dropout| dropped.as_ref().filter(|_| dropout.is_active());
        let (first, second) = (space.part([rows, first]), space.part([rows, second]));
        let (norm_gradient, down_bias) = self.norm_backward(NormBack {
            gradient: &gradient,
            sum: &sums.sum,
            statistics: &sums.statistics,
            norm,
            sum_gradient: &sum_gradient,
            update_gradient: apart(self.call.feed_forward),
            y: None,
            dropout: self.call.feed_forward,
            own: &own,
        });
        drop(gradient);
        let update_gradient = apart(self.call.feed_forward).unwrap_or(&sum_gradient);

        let wide_gradient = first.take([rows, wide]);
        self.timed("down: input", || {
            self.input_gradient(update_gradient, dim, &down.weight, &wide_gradient, wide, Epilogue::Store)
        });
        let values = second.take([rows, wide]);
        let up_bias = own.take([wide]);
        self.timed("activation: backward", || {
            ActivationBackward {
                gradient: &wide_gradient,
                before: &parts.before_activation,
                values: &values,
                bias_gradient: &up_bias,
                activation: self.call.activation,
            }
            .launch()
        });
        let down_weight = own.take([wide, dim]);
        self.weight_gradient("down: weight", &values, update_gradient, &down_weight);
        // The values make room for what the other half of the layer needs.
        let second = second.again();
        let normed_gradient = second.take([rows, dim]);
        self.timed("up: input", || {
            let epilogue = Epilogue::Add(&sum_gradient);
            self.input_gradient(&wide_gradient, wide, &up.weight, &normed_gradient, dim, epilogue)
        });

        let normed = second.take([rows, dim]);
        let (attention_norm_gradient, output_bias) = self.norm_backward(NormBack {
            gradient: &normed_gradient,
            sum: &sums.attention_sum,
            statistics: &sums.attention_statistics,
            norm: attention_norm,
            sum_gradient: &sum_gradient,
            update_gradient: apart(self.call.attention),
            y: Some(&normed),
            dropout: self.call.attention,
            own: &own,
        });
        let up_weight = own.take([dim, wide]);
        self.weight_gradient("up: weight", &normed, &wide_gradient, &up_weight);
        let update_gradient = apart(self.call.attention).unwrap_or(&sum_gradient);

        let context_gradient = second.take([rows, dim]);
        self.timed("output: input", || {
            self.input_gradient(update_gradient, dim, &output.weight, &context_gradient, dim, Epilogue::Store)
        });
        let context = second.take([rows, dim]);
        let qkv_gradient = first.again().take([rows, 3 * dim]);
        self.timed("attention: backward", || {
            self.attention().backward(&parts.qkv, &context_gradient, &qkv_gradient, &context)
        });
        let output_weight = own.take([dim, dim]);
        self.weight_gradient("output: weight", &context, update_gradient, &output_weight);

        let biases = [0, 1, 2].map(|_| own.take([dim]));
        self.timed("sums", || column_sums(&qkv_gradient, biases.each_ref(), dim));
        let joined = self.joined([&query.weight, &key.weight, &value.weight], &space);
        let x_gradient = self.empty(dim);
        self.timed("qkv: input", || {
            let epilogue = Epilogue::Add(&sum_gradient);
            self.input_gradient(&qkv_gradient, 3 * dim, &joined, &x_gradient, dim, epilogue)
        });
        let joined = space.take([dim, 3 * dim]);
        self.weight_gradient("qkv: weight", self.x, &qkv_gradient, &joined);
        let weights = [0, 1, 2].map(|_| own.take([dim, dim]));
        self.timed("split", || split_columns(&joined, weights.each_ref()));
        let [query, key, value] = weights;
        let [query_bias, key_bias, value_bias] = biases;
        LayerGradients {
            x: x_gradient,
            weights: LayerWeights {
                query: Affine { weight: query, bias: query_bias },
                key: Affine { weight: key, bias: key_bias },
                value: Affine { weight: value, bias: value_bias },
                output: Affine { weight: output_weight, bias: output_bias },
                attention_norm: attention_norm_gradient,
                up: Affine { weight: up_weight, bias: up_bias },
                down: Affine { weight: down_weight, bias: down_bias },
                norm: norm_gradient,
            },
        }
    }

    fn parts(&self, kept: &CubeTensor, layout: &Kept) -> Parts {
        let (rows, dim, wide) = (self.call.texts.rows(), self.call.dim, self.call.wide);
        let keeps = !layout.statistics.is_empty();
        let part = |range: &std::ops::Range<usize>, columns: usize, dtype: DType| {
            view(kept, range.clone(), [rows, columns], dtype)
        };
        if !keeps {
            let (qkv, before_activation) = (self.empty(3 * dim), self.empty(wide));
            return Parts { qkv, before_activation, kept: None };
        }
        let dtype = self.x.dtype;
        let half = rows * 2 * 4;
        let statistics = layout.statistics.start;
        Parts {
            qkv: part(&layout.qkv, 3 * dim, dtype),
            before_activation: part(&layout.before_activation, wide, dtype),
            kept: Some(KeptParts {
                attention_sum: part(&layout.attention_sum, dim, dtype),
                sum: part(&layout.sum, dim, dtype),
                attention_statistics: part(&(statistics..statistics + half), 2, DType::F32),
                statistics: part(&(statistics + half..statistics + 2 * half), 2, DType::F32),
            }),
        }
    }

    fn attention(&self) -> Attention<'_> {
        Attention {
            texts: self.call.texts,
            words: self.texts,
            dim: self.call.dim,
            heads: self.call.heads,
            dropout: self.call.probabilities,
            most: self.call.kernels,
        }
    }

    /// Matrices side by side, `[dim, 3 dim]`.
    fn joined(&self, weights: [&CubeTensor; 3], space: &Carving) -> CubeTensor {
        let dim = self.call.dim;
        let joined = space.take([dim, 3 * dim]);
        self.timed("join", || join_columns(weights, &joined));
        joined
    }

    fn affine(
        &self,
        x: &CubeTensor,
        input: usize,
        weight: &CubeTensor,
        out: &CubeTensor,
        output: usize,
        epilogue: Epilogue,
    ) {
        let weight = matrix(weight, input, output);
        let (x, out) = (self.rows(x, input), self.rows(out, output));
        product(Layout::Plain, Operands { a: &x, b: &weight, out: &out }, epilogue, self.call.kernels);
    }

    /// `gradient W^T` for a weight of `[input, output]`.
    fn input_gradient(
        &self,
        gradient: &CubeTensor,
        output: usize,
        weight: &CubeTensor,
        out: &CubeTensor,
        input: usize,
        epilogue: Epilogue,
    ) {
        let weight = matrix(weight, input, output);
        let (gradient, out) = (self.rows(gradient, output), self.rows(out, input));
        let operands = Operands { a: &gradient, b: &weight, out: &out };
        product(Layout::RightTransposed, operands, epilogue, self.call.kernels);
    }

    /// `x^T gradient`, to `[input, output]`.
    fn weight_gradient(&self, name: &'static str, x: &CubeTensor, gradient: &CubeTensor, out: &CubeTensor) {
        let [input, output] = [out.meta.shape()[0], out.meta.shape()[1]];
        let (x, gradient, out) = (self.rows(x, input), self.rows(gradient, output), matrix(out, input, output));
        self.timed(name, || {
            let operands = Operands { a: &x, b: &gradient, out: &out };
            product(Layout::LeftTransposed, operands, Epilogue::Store, self.call.kernels)
        });
    }

    /// The gradients of the norm, and of the bias that was added before it.
    fn norm_backward(&self, back: NormBack) -> (Norm<CubeBackend>, CubeTensor) {
        let width = self.call.dim;
        let [gamma, beta, bias] = [0, 1, 2].map(|_| back.own.take([width]));
        self.timed("norm: backward", || {
            NormBackward {
                gradient: back.gradient,
                sum: back.sum,
                statistics: back.statistics,
                gamma: &back.norm.gamma,
                beta: &back.norm.beta,
                sum_gradient: back.sum_gradient,
                update_gradient: back.update_gradient,
                y: back.y,
                gamma_gradient: &gamma,
                beta_gradient: &beta,
                bias_gradient: &bias,
                rows: self.call.texts.rows(),
                width,
                dropout: back.dropout,
            }
            .launch()
        });
        (Norm { gamma, beta }, bias)
    }

    fn rows(&self, tensor: &CubeTensor, columns: usize) -> Matrix {
        matrix(tensor, self.call.texts.rows(), columns)
    }

    fn empty(&self, columns: usize) -> CubeTensor {
        new(self.x, [self.call.texts.rows(), columns])
    }

    fn timed(&self, name: &'static str, work: impl FnOnce()) {
        timed(Grain::Kernels, name, &self.x.client, work);
    }
}

/// What differs between a layer's two norms on the way back.
struct NormBack<'a> {
    gradient: &'a CubeTensor,
    sum: &'a CubeTensor,
    statistics: &'a CubeTensor,
    norm: &'a Norm<CubeBackend>,
    sum_gradient: &'a CubeTensor,
    update_gradient: Option<&'a CubeTensor>,
    y: Option<&'a CubeTensor>,
    dropout: Dropout,
    own: &'a Carving,
}

/// One buffer that tensors are cut from: memory that is asked for once costs the host a fraction of what twenty pieces
/// do.
struct Carving {
    buffer: CubeTensor,
    start: usize,
    /// In bytes, as the next one.
    next: Cell<usize>,
}

impl Carving {
    /// Memory for as many numbers of the type of `like`, in pieces of these sizes.
    fn new(like: &CubeTensor, sizes: &[usize]) -> Self {
        let size = like.dtype.size();
        let bytes: usize = sizes.iter().map(|numbers| (numbers * size).next_multiple_of(Kept::ALIGNMENT)).sum();
        Self { buffer: empty(like, bytes / size, like.dtype), start: 0, next: Cell::new(0) }
    }

    /// The next piece.
    fn take<const N: usize>(&self, shape: [usize; N]) -> CubeTensor {
        let dtype = self.buffer.dtype;
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let start = self.next.get();
        self.next.set(start + bytes.next_multiple_of(Kept::ALIGNMENT));
        view(&self.buffer, start..start + bytes, shape, dtype)
    }

    /// The next piece, to be cut itself.
    fn part<const N: usize>(&self, shape: [usize; N]) -> Self {
        let start = self.next.get();
        self.take(shape);
        Self { buffer: self.buffer.clone(), start, next: Cell::new(start) }
    }

    /// All of it once more, after its pieces have been used.
    fn again(&self) -> Self {
        Self { buffer: self.buffer.clone(), start: self.start, next: Cell::new(self.start) }
    }
}

fn matrix(tensor: &CubeTensor, rows: usize, columns: usize) -> Matrix {
    Matrix { tensor: tensor.clone(), rows, columns }
}

/// An uninitialised tensor of the type of `like`.
pub fn new<const N: usize>(like: &CubeTensor, shape: [usize; N]) -> CubeTensor {
    let flat = empty(like, shape.iter().product(), like.dtype);
    CubeTensor::new_contiguous(flat.client, flat.device, Shape::from(shape), flat.handle, like.dtype)
}

/// A range of a buffer's bytes as a tensor.
pub fn view<const N: usize>(
    buffer: &CubeTensor,
    bytes: std::ops::Range<usize>,
    shape: [usize; N],
    dtype: DType,
) -> CubeTensor {
    let all = buffer.meta.shape().num_elements() * buffer.dtype.size();
    let handle = buffer.handle.clone().offset_start(bytes.start as u64).offset_end((all - bytes.end) as u64);
    CubeTensor::new_contiguous(buffer.client.clone(), buffer.device.clone(), Shape::from(shape), handle, dtype)
}
