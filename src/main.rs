//! The program: command line, daemon and everything in one binary.

// Many threads allocate for a moment: the system's allocator keeps what they freed (gigabytes after a large move).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tcfs::cli::main(std::env::args_os())
}
