//! A trained model, read back from its run folder.

use crate::{
    config::Config,
    data::{LabelMap, TextTokenizer},
    device::Compute,
    error::{Error, Result},
    model::{Job, ModelSpec, XmcModel},
    run::{RunFolder, State, Which},
    setup,
};

/// A model read back from its run folder.
pub struct Trained {
    /// The settings of the run.
    pub config: Config,
    /// What the classifier's outputs mean.
    pub labels: LabelMap,
    /// Text to token ids.
    pub tokenizer: TextTokenizer,
    /// Where the model is.
    pub compute: Compute,
    /// The model, off the autodiff graph.
    pub model: XmcModel,
    /// Where the run stood when the checkpoint was written.
    pub state: State,
}

impl Trained {
    /// Reads a checkpoint of a run.
    ///
    /// # Errors
    /// [`Error::Run`] if the folder or the checkpoint is not what it should be,
    /// [`Error::Device`], [`Error::Memory`].
    pub fn load(folder: &RunFolder, which: Which, device: Option<&str>) -> Result<Self> {
        let config = folder.load_config()?;
        // Before anything large: a run without a checkpoint is found out at once.
        folder.state(which)?;
        let compute = setup::device(&config, device)?;
        let labels = LabelMap::load(&folder.labels_path())?;
        let tokenizer = TextTokenizer::from_file(&folder.tokenizer_path())?;
        let spec = folder.load_spec(&config, labels.len())?.with_chunks(&config);
        check_fits(folder, &config, &spec, &tokenizer)?;
        spec.check_memory(Job::new(&config, false), &compute)?;
        let (model, state) = folder.load_checkpoint(&spec, which, &compute)?;
        Ok(Self { config, labels, tokenizer, compute, model, state })
    }
}

/// Whether the encoder has a place for every token, and for the longest text.
fn check_fits(folder: &RunFolder, config: &Config, spec: &ModelSpec, tokenizer: &TextTokenizer) -> Result<()> {
    let wrong = |message: String| Error::Run {
        path: folder.path().to_owned(),
        message,
        hint: Some("the file belongs to the run: undo the change, restore it, or train again".into()),
    };
    let (longest, positions) = (config.dataset.data.max_len, spec.encoder.max_tokens());
    if longest.next_multiple_of(8) > positions {
        return Err(wrong(format!(
            "config.toml: `dataset.data.max_len`: expected at most {positions} (the encoder's positions), found {longest}"
        )));
    }
    let tokens = tokenizer.vocab_size().max(tokenizer.pad_id() as usize + 1);
    if tokens > spec.encoder.vocab_size() {
        return Err(wrong(format!(
            "tokenizer.json: has {tokens} tokens, and the encoder embeds {}",
            spec.encoder.vocab_size()
        )));
    }
    Ok(())
}
