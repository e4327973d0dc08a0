//! How Burn fuses the operations around ours.

/// Lets Burn fuse one block of operations at a time on GPUs, unless a `burn.toml` or the program has said otherwise. To
/// be called before the first tensor.
///
/// With its default of five, Burn 0.22.1 often cannot put the blocks of an optimizer step in order again and runs all
/// of their operations unfused: several times the kernels a training step.
pub fn configure_fusion() {
    #[cfg(feature = "cube")]
    {
        use burn::BurnConfig;
        use cubecl::config::RuntimeConfig;

        let config = BurnConfig::from_current_dir().override_from_env();
        let default = BurnConfig::default().fusion().beam_search.max_blocks;
        let with_one_block = || {
            let mut value = serde_json::to_value(&config)?;
            value["fusion"]["beam_search"]["max_blocks"] = 1.into();
            serde_json::from_value(value)
        };
        if config.fusion().beam_search.max_blocks == default
            && let Ok(config) = with_one_block()
        {
            BurnConfig::try_set(config);
        }
    }
}
