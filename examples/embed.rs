//! The classifier behind one's own Burn module: a bag-of-features model with 10,000 labels, trained end to end.
//!
//! Run it: `cargo run --release --example embed`

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Distribution, Tensor, activation::relu},
};
use elmo::classifier::{Classifier, ClassifierConfig, Format, Positives};

/// Any Burn module may hold a [`Classifier`]: it is saved, loaded and moved with the rest.
#[derive(Module, Debug)]
struct Tagger {
    hidden: Linear,
    classifier: Classifier,
}

impl Tagger {
    fn new(features: usize, labels: usize, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(features, 64).init(device),
            classifier: ClassifierConfig::new(labels, 64).with_precision(Format::E4m3).with_seed(1).init(device),
        }
    }

    fn embed(&self, x: Tensor<2>) -> Tensor<2> {
        relu(self.hidden.forward(x))
    }
}

fn main() {
    let (features, labels, batch) = (100, 10_000, 32);
    let device = Device::flex().autodiff();
    device.seed(1);
    let mut model = Tagger::new(features, labels, &device);
    let mut optimizer = AdamConfig::new().init();

    // Row i is an example of the labels 7 i and 300 i.
    let x = Tensor::<2>::random([batch, features], Distribution::Default, &device);
    let rows = 0..batch as u32;
    let positives = Positives::new(rows.flat_map(|i| [(7 * i, i), (300 * i, i)]).collect());

    for step in 0..=200 {
        let embedding = model.embed(x.clone());
        // Updates the classifier in place and hands back the gradient of the embedding.
        let learned = model.classifier.step(embedding.clone().inner(), &positives, 0.1, step % 50 == 0);
        let gradients = learned.back_propagate(embedding).backward();
        if step % 50 == 0 {
            let (loss, _) = learned.read_report();
            println!("step {step:3}  loss {:.3} a row", loss / batch as f32);
        }
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = optimizer.step(1e-3, model, gradients);
    }

    let best = model.classifier.top_k(model.embed(x).inner(), 2);
    let labels: Vec<i32> = best.labels.into_data().iter().collect();
    println!("labels of row 3: {:?} (21 and 900 are right)", &labels[6..8]);
}
