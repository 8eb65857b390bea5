//! The program: command line, daemon and everything in one binary.

fn main() -> std::process::ExitCode {
    tcfs::cli::main(std::env::args_os())
}
