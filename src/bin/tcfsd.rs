//! The same program under the name of the daemon: without a command it runs the daemon in the foreground.

fn main() -> std::process::ExitCode {
    tcfs::cli::main(std::env::args_os())
}
