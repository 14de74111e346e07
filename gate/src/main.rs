//! The binary `scale-callback`. The library holds everything, so that the daemon's binary has the same commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    scale_callback::cli::main()
}
