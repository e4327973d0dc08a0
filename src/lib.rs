//! Extreme multi-label classification on one commodity GPU: train, evaluate and use classifiers with hundreds of
//! thousands to millions of labels whose weights live in 8 bits.
//!
//! A re-implementation in Rust, on [Burn](burn), of the system of "ELMO: Efficiency via Low-precision and Peak Memory
//! Optimization in Large Output Spaces" (ICML 2025, arXiv 2510.11168).
//!
//! The heart is [`classifier::Classifier`], an ordinary Burn module that trains itself in place. Put it behind any
//! module of your own; `examples/embed.rs` is a complete program:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use elmo::classifier::{ClassifierConfig, Positives};
//!
//! let device = Device::flex();
//! let classifier = ClassifierConfig::new(50_000, 64).init(&device);
//! let x = Tensor::<2>::ones([2, 64], &device);
//!
//! // Row 0 is an example of label 7, row 1 of 49,999. One step: gradient of x, weights updated in place.
//! let positives = Positives::new(vec![(7, 0), (49_999, 1)]);
//! let step = classifier.step(x.clone(), &positives, 0.1, true);
//! assert_eq!(step.input_gradient.dims(), [2, 64]);
//!
//! let best = classifier.top_k(x, 5);
//! assert_eq!(best.labels.dims(), [2, 5]);
//! ```
//!
//! The program `elmo` is made of these calls:
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use elmo::{config::Config, predict::predict, run::Which, train, trained::Trained};
//!
//! # fn main() -> elmo::Result<()> {
//! let (config, _warnings) = Config::load(None, &["dataset=food".into(), "dataset.training.epochs=3".into()])?;
//! let training = train::Training::prepare(config, train::Options::default())?;
//! let folder = training.folder().clone();
//! let evaluation = training.run(Arc::new(|event| println!("{event:?}")))?;
//! println!("P@1 {:.2}", 100.0 * evaluation.metrics.precision_at(1));
//!
//! let trained = Trained::load(&folder, Which::Best, None)?;
//! for prediction in predict(&trained, &["a sweet red wine".into()], 5)? {
//!     println!("{:?}", prediction.labels);
//! }
//! # Ok(()) }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | settings: default < data set < file < `key=value` |
//! | [`data`] | files to token ids, label space, batches |
//! | [`encoder`] | BERT, DistilBERT and RoBERTa, from scratch or pretrained, and how they are trained |
//! | [`classifier`] | the classifier |
//! | [`model`] | encoder and classifier together, and their description |
//! | [`loader`] | batches on a device, from any position of any epoch |
//! | [`optim`] | Adam with Kahan summation, learning-rate schedules |
//! | [`train`] | the training loop |
//! | [`run`] | the run folder |
//! | [`trained`] | a trained model, read back from its run folder |
//! | [`mod@embed`] | embeddings of texts, and NumPy arrays of them |
//! | [`predictions`] | the predictions of other systems, read row by row |
//! | [`eval`], [`evaluate`] | metrics, and a model's metrics on a data set |
//! | [`predict`] | text in, labels out |
//! | [`device`] | devices by name |
//! | [`mod@bench`] | what the classifier, or a whole training step, costs on a device |
//! | [`cli`] | the command line |

// Errors are rare and made to be read; their size does not matter.
#![allow(clippy::result_large_err)]

pub mod classifier;
pub mod device;
mod downloaded;
pub mod encoder;
mod error;
mod finite;
pub mod optim;

#[cfg(feature = "train")]
mod atomic;
#[cfg(feature = "train")]
pub mod config;
#[cfg(feature = "train")]
pub mod data;
#[cfg(feature = "train")]
pub mod embed;
#[cfg(feature = "train")]
pub mod eval;
#[cfg(feature = "train")]
pub mod evaluate;
#[cfg(feature = "train")]
mod hardware;
#[cfg(feature = "train")]
mod hub;
#[cfg(feature = "train")]
pub mod loader;
#[cfg(feature = "train")]
mod memory;
#[cfg(feature = "train")]
pub mod model;
#[cfg(feature = "train")]
mod npy;
#[cfg(feature = "train")]
pub mod predict;
#[cfg(feature = "train")]
pub mod predictions;
#[cfg(feature = "train")]
pub mod run;
#[cfg(feature = "train")]
mod setup;
#[cfg(feature = "train")]
pub mod train;
#[cfg(feature = "train")]
pub mod trained;

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;

pub use error::{Error, Place, Result, bytes};
