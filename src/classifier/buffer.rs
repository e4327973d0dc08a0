//! A device buffer that a module owns and changes in place behind `&self`.
//!
//! Burn's training step takes the model by `&self`, and its learner keeps a clone of the model during every optimizer
//! step. A [`Param`] would be cloned there, and an in-place operation on a shared tensor copies it: twice the memory of
//! the largest part of the model. Clones of this buffer share one tensor instead. It is saved and loaded like a
//! parameter, and optimizers pass it by, since they touch float parameters only.

use std::{
    convert::Infallible,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use burn::{
    module::{Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{DType, Device, Int, Tensor, TensorData},
};

use crate::device::is_cpu;

/// Words that travel between host and GPU at a time.
pub(super) const PIECE: usize = 8 << 20;

/// A buffer of `length` words on a device; `fill` writes a run of them at a time.
///
/// On a GPU it lies in memory of its own: the pool of temporary memory has pages as large as the largest thing in it,
/// and would take as much again for the first small tensor that comes after a large one.
///
/// # Errors
/// The first one of `fill`.
pub(super) fn upload<E>(
    length: usize,
    device: &Device,
    fill: impl FnMut(Range<usize>, &mut [u32]) -> Result<(), E>,
) -> Result<Tensor<1, Int>, E> {
    upload_rows(length, 1, device, fill)
}

/// The same of words that are already on the host.
pub(super) fn upload_words(words: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    if is_cpu(device) {
        return piece(words, device);
    }
    upload(words.len(), device, |at, piece| {
        piece.copy_from_slice(&words[at]);
        Ok::<_, Infallible>(())
    })
    .unwrap_or_else(|never| match never {})
}

/// As [`upload`]; every run is whole rows of `row_words` words.
pub(super) fn upload_rows<E>(
    length: usize,
    row_words: usize,
    device: &Device,
    mut fill: impl FnMut(Range<usize>, &mut [u32]) -> Result<(), E>,
) -> Result<Tensor<1, Int>, E> {
    if length == 0 {
        // A buffer of no size is not allowed everywhere.
        return Ok(piece(vec![0], device));
    }
    if is_cpu(device) {
        let mut words = vec![0; length];
        fill(0..length, &mut words)?;
        return Ok(piece(words, device));
    }
    let mut buffer = device.memory_persistent_allocations(device.clone(), |device| {
        Tensor::<1, Int>::empty([length], (&device, DType::U32))
    });
    let step = (PIECE / row_words).max(1) * row_words;
    for from in (0..length).step_by(step) {
        let range = from..(from + step).min(length);
        let mut words = vec![0; range.len()];
        fill(range.clone(), &mut words)?;
        buffer = buffer.slice_assign([range], piece(words, device));
        // Else all pieces would be under way at once. Whoever uses a device that fails here will hear of it.
        let _ = device.sync();
    }
    Ok(buffer)
}

fn piece(words: Vec<u32>, device: &Device) -> Tensor<1, Int> {
    let length = words.len();
    Tensor::from_data(TensorData::new(words, [length]), (device, DType::U32))
}

/// 32-bit words on a device, shared by all clones.
#[derive(Clone, Debug)]
pub(super) struct SharedWords {
    id: ParamId,
    // `None` only while an update or a map is running, or after one has panicked.
    value: Arc<Mutex<Option<Tensor<1, Int>>>>,
}

impl SharedWords {
    /// Takes the tensor as the buffer's content. It lies off the autodiff graph.
    pub fn new(value: Tensor<1, Int>) -> Self {
        Self { id: ParamId::new(), value: Arc::new(Mutex::new(Some(value))) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tensor<1, Int>>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle on the content. While it lives, updates copy.
    ///
    /// # Panics
    /// If an update panicked before.
    pub fn get(&self) -> Tensor<1, Int> {
        self.lock().clone().expect("an update panicked")
    }

    /// Takes the tensor out, so that `f` owns the only handle, and puts its result back.
    ///
    /// # Panics
    /// If an update panicked before.
    pub fn update<R>(&self, f: impl FnOnce(Tensor<1, Int>) -> (Tensor<1, Int>, R)) -> R {
        let mut slot = self.lock();
        let (new, result) = f(slot.take().expect("an update panicked"));
        *slot = Some(new);
        result
    }

    fn replace(self, f: impl FnOnce(Tensor<1, Int>) -> Tensor<1, Int>) -> Self {
        self.update(|value| (f(value), ()));
        self
    }
}

impl Module for SharedWords {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_int(&Param::initialized(self.id, self.get()));
    }

    /// A mapper that puts another tensor here, as a loader of Burn's stores does, says where it lies: on a GPU in the
    /// pool of temporary memory, beside what [`upload`] has set aside for good. Weights from elsewhere come by
    /// [`ClassifierConfig::load`](super::ClassifierConfig::load) without that.
    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let id = self.id;
        self.replace(|value| mapper.map_int(Param::initialized(id, value)).into_value())
    }

    fn to_device(self, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        self.replace(|value| if value.device() == device { value } else { value.to_device(&device) })
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        // Its device never carries autodiff; reporting it would make a model on one device look like one on two.
        devices
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }

    fn materialize(self) -> Self {
        self
    }
}

impl core::fmt::Display for SharedWords {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SharedWords(id={})", self.id)
    }
}

impl ModuleDisplayDefault for SharedWords {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&"SharedWords".to_string()).optional()
    }
}

impl ModuleDisplay for SharedWords {}
