//! The program `elmo`; everything it does is a call of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    elmo::cli::main()
}
