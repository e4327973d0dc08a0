//! The program as a user meets it: the real binary on real data, a file a promise. One binary, as each is linked anew.

mod bench;
mod common;
mod embed;
mod evaluate;
mod layouts;
mod predict;
mod presets;
mod regression;
mod run_folders;
mod runs;
mod usage;
mod vocabulary;
