//! Names of keys: those of the reference that mean nothing here, and the nearest one to a typo.

/// Keys of the reference that are accepted without effect, and why. Setting one yields a warning, so that a
/// configuration or a command line written for the reference keeps working.
// One line a key, as a table is read.
#[rustfmt::skip]
pub(super) const IGNORED: &[(&str, &str)] = &[
    ("dataset.data.dtype", "dataset.model.encoder.dtype and dataset.model.xmc set the precision"),
    ("dataset.data.num_workers", "the number of threads follows from the machine"),
    ("dataset.data.tokenized_loading", "tokens are always cached"),
    ("dataset.model.encoder.encoder_ftr_dim", "it follows from the encoder"),
    ("dataset.model.encoder.ngame_checkpoint", "NGAME weights are not available in this version"),
    ("dataset.model.encoder.use_torch_compile", "there is no PyTorch here"),
    ("dataset.model.bottleneck.bottleneck_activation", "the bottleneck layer is not available in this version"),
    ("dataset.model.bottleneck.bottleneck_size", "the bottleneck layer is not available in this version"),
    ("dataset.model.bottleneck.dtype", "the bottleneck layer is not available in this version"),
    ("dataset.model.xmc.embed_dropout", "it belongs to using_dropout, which is not available in this version"),
    ("dataset.model.xmc.input_features", "it follows from the encoder"),
    ("dataset.model.xmc.layer", "the classifier is always dense"),
    ("dataset.model.xmc.output_features", "it is the number of labels"),
    ("dataset.model.xmc.use_torch_compile", "there is no PyTorch here"),
    ("dataset.training.best_p1", "there is no threshold to pass before a model is saved"),
    ("dataset.training.checkpoint_file", "checkpoints lie in the run folder, see log_fname"),
    ("dataset.training.load_checkpoint_file", "checkpoints lie in the run folder, see log_fname"),
    ("dataset.training.training_steps", "the number of steps follows from the data and dataset.training.epochs"),
    ("dataset.training.use_checkpoint", "every epoch leaves a checkpoint"),
    ("dataset.training.precision.mode", "dataset.model.encoder.dtype and dataset.model.xmc set the precision"),
    ("dataset.training.precision.purelp_dtype", "dataset.model.encoder.dtype and dataset.model.xmc set the precision"),
    ("dataset.training.encoder.implementation", "dataset.training.encoder.kahan chooses Kahan summation"),
    ("dataset.training.encoder.momentum", "Adam has no momentum to set"),
    ("dataset.training.bottleneck.lr", "the bottleneck layer is not available in this version"),
    ("dataset.training.bottleneck.wd", "the bottleneck layer is not available in this version"),
    ("dataset.training.FP8.debug_data_path", "there is no such debug output"),
    ("dataset.training.FP8.debug_magnitude", "there is no such debug output"),
    ("dataset.training.FP8.fp8_embed", "dataset.training.xmc.simulated_fp8=False multiplies in E4M3"),
    ("dataset.training.FP8.fp8_encoder_delayed_scaling", "the FP8 encoder is not available in this version"),
    ("dataset.training.FP8.fp8_head_kahan", "dataset.model.xmc.implementation=fp8chunkedheadkahan chooses it"),
    ("dataset.training.FP8.num_split", "the kernels choose their own split"),
    ("dataset.training.FP8.use_scaled_mm", "the device decides how to multiply"),
    ("dataset.training.FP8.using_head_kahan", "dataset.model.xmc.implementation=fp8chunkedheadkahan chooses it"),
    ("dataset.training.evaluation.eval_ndcg", "all metrics are always computed: P, nDCG, R, PSP, PSnDCG, PSR"),
    ("dataset.training.evaluation.eval_psp", "all metrics are always computed: P, nDCG, R, PSP, PSnDCG, PSR"),
    ("dataset.training.evaluation.eval_psr", "all metrics are always computed: P, nDCG, R, PSP, PSnDCG, PSR"),
    ("dataset.training.evaluation.eval_recall", "all metrics are always computed: P, nDCG, R, PSP, PSnDCG, PSR"),
    ("dataset.training.evaluation.running_evaluation", "held-out rows are evaluated, see dataset.data.validation_fraction"),
    ("dataset.training.evaluation.train_evaluate", "held-out rows are evaluated, see dataset.data.validation_fraction"),
    ("dataset.training.evaluation.train_evaluate_every", "held-out rows are evaluated, see dataset.data.validation_fraction"),
    ("dataset.training.verbose.log_fname", "log_fname names the run folder"),
    ("dataset.training.verbose.logging", "a run always keeps its log, in its run folder"),
    ("dataset.training.verbose.print_iter", "the program chooses how to show progress"),
    ("dataset.training.verbose.show_iter", "the program chooses how to show progress"),
    ("dataset.training.verbose.use_wandb", "nothing is sent anywhere"),
    ("dataset.training.verbose.wandb_runname", "nothing is sent anywhere"),
];

/// Why the key has no effect, if it is one of [`IGNORED`].
pub(super) fn ignored(key: &str) -> Option<&'static str> {
    IGNORED.iter().find(|(known, _)| *known == key).map(|(_, why)| *why)
}

/// The candidates that are the fewest edits away from what was typed, at most three.
///
/// A key need not be typed from its beginning: `epoch` is one edit from `dataset.training.epochs`. There are none
/// where even the nearest differs in half of what was typed: they would only mislead.
pub(super) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let parts = typed.split('.').count();
    let mut ranked: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|key| (distance(typed, key).min(distance(typed, tail(key, parts))), key))
        .collect();
    // Stable: where several are as near, those that were named first stay first.
    ranked.sort_by_key(|(distance, _)| *distance);
    let Some(&(least, _)) = ranked.first() else {
        return Vec::new();
    };
    if least * 2 >= typed.chars().count() {
        return Vec::new();
    }
    ranked
        .into_iter()
        .take_while(|(distance, _)| *distance == least)
        .map(|(_, key)| key)
        .take(3)
        .collect()
}

/// `did you mean` these, for a hint.
pub(super) fn did_you_mean(names: &[&str]) -> Option<String> {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

/// The last `parts` parts of a key.
fn tail(key: &str, parts: usize) -> &str {
    key.rmatch_indices('.')
        .nth(parts - 1)
        .map_or(key, |(dot, _)| &key[dot + 1..])
}

/// Levenshtein's distance: insertions, deletions and replacements, upper and lower case being the same.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    // `row[j]`: the distance of the part of `a` seen so far from the first `j` characters of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("FP8", "fp8"), 0);
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(nearest("fod", ["food", "things"]), ["food"]);
        assert!(nearest("zzzz", ["food", "things"]).is_empty());
        assert!(nearest("", ["food", "things"]).is_empty());
    }

    #[test]
    fn knows_a_key_by_its_end() {
        let keys = ["a.lr", "b.lr", "a.flr"];
        assert_eq!(nearest("lr", keys), ["a.lr", "b.lr"]);
        assert_eq!(
            did_you_mean(&nearest("lr", keys)).unwrap(),
            "did you mean `a.lr` or `b.lr`?"
        );
    }
}
