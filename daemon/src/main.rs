//! The binary. All its code is in the library.

fn main() -> std::process::ExitCode {
    callbackd::cli::main()
}
