//! The same program under the name of the daemon: without a command it runs the daemon in the foreground.

// Many threads allocate for a moment: the system's allocator keeps what they freed (gigabytes after a large move).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tcfs::cli::main(std::env::args_os())
}
