//! Adam for all parameters of a module at once.
//!
//! Burn's `ModuleOptimizer` steps one parameter after the other, and each step costs the host some tens of microseconds
//! whatever its size: for the two hundred parameters of BERT-base more than the device needs for the encoder's backward
//! pass. Here the parameters leave the module, are updated in batches, and return.

use std::{any::Any, collections::HashMap};

use burn::{
    backend::{Dispatch, tensor::FloatTensor},
    module::{Module, ModuleMapper, Param, ParamGroup, ParamId, ParamMapper},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};
use elmo_kernels::optim::{AdamTensors, AdamWork, kahan_adam_all, settle};

use super::KahanAdam;

/// [`KahanAdam`] for all parameters of a module, with the results of Burn's `ModuleOptimizer` to the bit.
///
/// ```
/// use burn::{module::ParamGroup, nn::LinearConfig, optim::GradientsParams, tensor::{Device, Tensor}};
/// use elmo::optim::{KahanAdam, ModuleAdam};
///
/// let device = Device::flex().autodiff();
/// let model = LinearConfig::new(4, 2).init(&device);
/// let x = Tensor::<2>::ones([3, 4], &device);
/// let gradients = GradientsParams::from_grads(model.forward(x).mean().backward(), &model);
/// // Biases have no weight decay.
/// let plain = KahanAdam { weight_decay: 0.0, ..KahanAdam::adamw() };
/// let biases = ParamGroup::from_any_predicates(vec!["bias"]);
/// let mut optimizer = ModuleAdam::new(KahanAdam::adamw()).with_group(biases, plain);
/// let model = optimizer.step(1e-3, model, gradients);
/// # let _ = model;
/// ```
#[derive(Debug)]
pub struct ModuleAdam {
    /// The last one that matches a parameter counts; the first one matches all.
    rules: Vec<(ParamGroup, KahanAdam)>,
    states: HashMap<ParamId, State>,
}

/// What is remembered of a parameter.
#[derive(Clone, Debug)]
struct State {
    rule: usize,
    time: usize,
    moment_1: FloatTensor<Dispatch>,
    moment_2: FloatTensor<Dispatch>,
    compensation: Option<FloatTensor<Dispatch>>,
}

impl ModuleAdam {
    /// The same rule for all parameters.
    pub fn new(rule: KahanAdam) -> Self {
        Self { rules: vec![(ParamGroup::all(), rule)], states: HashMap::new() }
    }

    /// Another rule for those parameters that belong to a group, whatever groups before it say.
    pub fn with_group(mut self, group: ParamGroup, rule: KahanAdam) -> Self {
        self.rules.push((group, rule));
        self.states.clear();
        self
    }

    /// The module one step later: in place where it holds the only handle of a parameter. Parameters without a gradient
    /// stay as they are.
    ///
    /// # Panics
    /// If a parameter has a type other than F32, F16 and BF16.
    pub fn step<M: Module>(&mut self, rate: f64, module: M, gradients: GradientsParams) -> M {
        let mut take = Take {
            path: Vec::new(),
            rules: &self.rules,
            states: &mut self.states,
            gradients,
            taken: Vec::new(),
            nothing: None,
        };
        let module = module.map(&mut take);
        let taken = take.taken;
        let mut put = Put { updated: HashMap::with_capacity(taken.len()) };
        for group in groups(taken) {
            let Some(first) = group.first() else { continue };
            let (rule, compensated) = (&self.rules[first.state.rule].1, first.state.compensation.is_some());
            let step = rule.at(rate, first.state.time);
            let nothing = first.place.nothing.clone();
            let mut work = Vec::with_capacity(group.len());
            let mut rest = Vec::with_capacity(group.len());
            for Taken { id, parameter, gradient, state, place } in group {
                let State { rule, time, moment_1, moment_2, compensation } = state;
                let compensation = compensation.unwrap_or_else(|| nothing.clone());
                let state = AdamTensors { parameter, moment_1, moment_2, compensation };
                work.push(AdamWork { state, gradient });
                rest.push((id, rule, time, place));
            }
            for ((id, rule, time, place), state) in rest.into_iter().zip(kahan_adam_all(work, step, compensated)) {
                let AdamTensors { parameter, moment_1, moment_2, compensation } = state;
                let compensation = compensated.then_some(compensation);
                self.states.insert(id, State { rule, time, moment_1, moment_2, compensation });
                put.updated.insert(id, (parameter, place));
            }
        }
        module.map(&mut put)
    }
}

/// A parameter outside of its module.
struct Taken {
    id: ParamId,
    parameter: FloatTensor<Dispatch>,
    gradient: FloatTensor<Dispatch>,
    state: State,
    place: Place,
}

/// What a parameter needs to return to its module.
struct Place {
    /// A `ParamMapper` of the parameter's number of dimensions.
    mapper: Box<dyn Any>,
    dtype: DType,
    tracked: bool,
    /// What stands for a compensation where there is none.
    nothing: FloatTensor<Dispatch>,
}

/// Parameters that can be updated together, in the module's order.
fn groups(taken: Vec<Taken>) -> Vec<Vec<Taken>> {
    let mut groups: Vec<Vec<Taken>> = Vec::new();
    let key = |it: &Taken| (it.state.rule, it.state.time, it.place.dtype, it.state.compensation.is_some());
    for it in taken {
        match groups.iter_mut().find(|group| key(&group[0]) == key(&it)) {
            Some(group) => group.push(it),
            None => groups.push(vec![it]),
        }
    }
    groups
}

/// Takes the parameters that have gradients out of a module.
struct Take<'a> {
    path: Vec<String>,
    rules: &'a [(ParamGroup, KahanAdam)],
    states: &'a mut HashMap<ParamId, State>,
    gradients: GradientsParams,
    taken: Vec<Taken>,
    /// See [`Place::nothing`].
    nothing: Option<FloatTensor<Dispatch>>,
}

impl ModuleMapper for Take<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return param;
        };
        let (device, shape) = (param.device(), param.shape());
        let (id, tensor, mapper) = param.consume();
        if shape.num_elements() == 0 {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let (dtype, tracked) = (tensor.dtype(), tensor.is_require_grad());
        let tensor = tensor.inner();
        let (tensor, state) = match self.states.remove(&id) {
            Some(state) => (tensor, state),
            None => {
                let path = self.path.join(".");
                let matching = self.rules.iter().rposition(|(group, _)| group.matches(&id, Some(path.as_str())));
                let rule = matching.expect("the first group matches every parameter");
                let zeros = || settle(tensor.zeros_like()).into_dispatch();
                let compensated = self.rules[rule].1.compensates(dtype);
                let state = State {
                    rule,
                    time: 0,
                    moment_1: zeros(),
                    moment_2: zeros(),
                    compensation: compensated.then(zeros),
                };
                (settle(tensor), state)
            }
        };
        let state = State { time: state.time + 1, ..state };
        let nothing =
            self.nothing.get_or_insert_with(|| Tensor::<1>::empty([1], (&device, dtype)).into_dispatch()).clone();
        let place = Place { mapper: Box::new(mapper), dtype, tracked, nothing };
        let (parameter, gradient) = (tensor.into_dispatch(), gradient.into_dispatch());
        self.taken.push(Taken { id, parameter, gradient, state, place });
        // Its place in the module, until it returns.
        let absent = |_: &_, _| unreachable!("a parameter returns before anybody reads it");
        Param::uninitialized(id, absent, device, tracked, shape)
    }
}

/// Puts them back.
struct Put {
    updated: HashMap<ParamId, (FloatTensor<Dispatch>, Place)>,
}

impl ModuleMapper for Put {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((parameter, place)) = self.updated.remove(&param.id) else {
            return param;
        };
        let tensor = Tensor::<D>::from_inner(Tensor::from_dispatch(parameter));
        let tensor = if place.tracked { tensor.require_grad() } else { tensor };
        let mapper = place.mapper.downcast::<ParamMapper<Tensor<D>>>();
        Param::from_mapped_value(param.id, tensor, *mapper.expect("a parameter keeps its number of dimensions"))
    }
}
