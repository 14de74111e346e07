//! `scale-callback`.

use std::process::ExitCode;

fn main() -> ExitCode {
    scale_callback::cli::main()
}
