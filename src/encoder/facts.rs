//! What tells one family of encoders from another.

use super::sizes::{Switches, TransformerConfig};

/// What is true of every encoder of a family.
pub(super) struct Facts {
    /// Defaults for keys that a `config.json` lacks.
    pub defaults: fn() -> TransformerConfig,
    /// Keys of `config.json` with another name than the field of [`TransformerConfig`]: field, key.
    pub keys: &'static [(&'static str, &'static str)],
    pub switches: Switches,
    pub names: Names,
}

impl Facts {
    /// The key of `config.json` that holds a field of [`TransformerConfig`].
    pub fn key<'a>(&self, field: &'a str) -> &'a str {
        self.keys.iter().find(|(ours, _)| *ours == field).map_or(field, |(_, key)| *key)
    }
}

/// The names of a family's tensors in a file, for those of the modules here: pairs of ours, theirs.
pub(super) struct Names {
    /// Modules outside the layers.
    pub modules: &'static [(&'static str, &'static str)],
    /// Prefix before the layer number; here it is `layers`.
    pub layers: &'static str,
    /// Modules of a layer.
    pub layer_modules: &'static [(&'static str, &'static str)],
    /// Tensors of the encoder that hold no weights.
    pub ignored: &'static [&'static str],
}

impl Names {
    /// The name in a file of the parameter at `path` in the transformer.
    ///
    /// # Panics
    /// If a module of the path is not in the table.
    pub fn in_file(&self, path: &str) -> String {
        let (module, parameter) = path.rsplit_once('.').expect("parameters lie in modules");
        let parameter = match parameter {
            "gamma" => "weight",
            "beta" => "bias",
            same => same,
        };
        let layer = module.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        let (table, module) = match layer {
            Some((_, module)) => (self.layer_modules, module),
            None => (self.modules, module),
        };
        let name = table.iter().find(|(ours, _)| *ours == module);
        let (_, name) = name.unwrap_or_else(|| panic!("no name for {path}"));
        match layer {
            Some((number, _)) => format!("{}.{number}.{name}.{parameter}", self.layers),
            None => format!("{name}.{parameter}"),
        }
    }

    /// Whether a tensor, its prefix taken off, belongs to the encoder: its name begins as the encoder's own do. Task
    /// heads and poolers stand beside those.
    pub fn owns(&self, name: &str) -> bool {
        let root = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let theirs = self.modules.iter().map(|(_, theirs)| *theirs).chain([self.layers]);
        theirs.map(root).any(|own| own == root(name)) && !self.ignored.contains(&name)
    }
}
