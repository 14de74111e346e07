//! The binary: thin. What it does is in the library.

fn main() -> std::process::ExitCode {
    callbackd::cli::main()
}
