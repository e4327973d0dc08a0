//! Keys of the reference that mean nothing here.

/// Keys of the reference that are accepted without effect, and why. Setting one yields a warning, so that a
/// configuration or a command line written for the reference keeps working.
// One line a key, as a table is read.
#[rustfmt::skip]
pub(super) const IGNORED: &[(&str, &str)] = &[
    ("dataset.data.dtype", "dataset.model.encoder.dtype and dataset.model.xmc set the precision"),
    ("dataset.data.is_lf_data", "the layout of a data set is recognised, and dataset.data.format names it"),
    ("dataset.data.num_workers", "the number of threads follows from the machine"),
    ("dataset.data.tokenized_loading", "tokens are always cached"),
    ("dataset.model.encoder.encoder_ftr_dim", "it follows from the encoder"),
    ("dataset.model.encoder.use_torch_compile", "there is no PyTorch here"),
    ("dataset.model.bottleneck.bottleneck_activation", "the layer is linear, in the reference as well"),
    ("dataset.model.bottleneck.dtype", "the layer has the type of the encoder, dataset.model.encoder.dtype"),
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
    ("dataset.training.bottleneck.lr", "the layer learns at dataset.training.encoder.lr, in the reference as well"),
    ("dataset.training.bottleneck.wd", "the layer has no weight decay, in the reference as well"),
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
    ("dataset.training.verbose.log_fname", "log_fname names the run folder"),
    ("dataset.training.verbose.logging", "a run always keeps its log, in its run folder"),
    ("dataset.training.verbose.print_iter", "the program chooses how to show progress"),
    ("dataset.training.verbose.show_iter", "the program chooses how to show progress"),
    ("dataset.training.verbose.use_wandb", "nothing is sent anywhere"),
    ("dataset.training.verbose.wandb_runname", "nothing is sent anywhere"),
];

/// Why the key has no effect, if it is one of [`IGNORED`].
pub(super) fn reason(key: &str) -> Option<&'static str> {
    IGNORED.iter().find(|(known, _)| *known == key).map(|(_, why)| *why)
}

/// Their names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    IGNORED.iter().map(|(name, _)| *name)
}
