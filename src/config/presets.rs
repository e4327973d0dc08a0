//! The configurations that are built in.

/// Every key with its default.
pub(super) const DEFAULT: &str = include_str!("../../config/default.toml");

/// The data set that is used when none is named.
pub(super) const FIRST: &str = "things";

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every preset, as in `config/dataset/`.
        const PRESETS: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../config/dataset/", $name, ".toml")))),*
        ];
    };
}

presets![
    "things",
    "food",
    "wordnet-lf",
    "amazon3m",
    "amazon670k",
    "amazontitles670k",
    "lfamazontitles1.3m",
    "lfamazontitles131k",
    "lfpaper2keywords",
    "lfwikiseealso320k",
    "wiki500k",
];

/// The names that `dataset=NAME` knows.
pub fn presets() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The TOML text of a preset.
pub(super) fn preset(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
