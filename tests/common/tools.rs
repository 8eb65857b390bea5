//! Programs of other people that the tests drive, and the command that installs each.
//!
//! A missing one is an error, never a skipped test: a suite that does not run proves nothing.

use std::path::{Path, PathBuf};

/// Where `tests/run` installs tools: `TCFS_TOOLS`, else `target/tools` of this checkout.
pub fn dir() -> PathBuf {
    if let Some(given) = std::env::var_os("TCFS_TOOLS") {
        return PathBuf::from(given);
    }
    // CARGO_TARGET_TMPDIR is <target>/tmp whatever the target directory is.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools")
}

/// The program `name`, from `target/tools/bin`, the tools' virtual environment, or the PATH; none if it is nowhere.
pub fn look(name: &str) -> Option<PathBuf> {
    let own = [dir().join("bin").join(name), dir().join("venv/bin").join(name)];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = own.into_iter().chain(std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).map(|d| d.join(name)));
    places.find(|p| p.is_file())
}

/// The same, which has to be there.
#[track_caller]
pub fn find(name: &str) -> PathBuf {
    match look(name) {
        Some(p) => p,
        None => panic!("{name} is missing; install it with: {}", install_command(name)),
    }
}

fn install_command(name: &str) -> String {
    let tools = dir();
    match name {
        "pjdfstest" => format!("cargo install --locked pjdfstest@0.2.2 --root {}", tools.display()),
        "fsx" => format!("cargo install --locked fsx@0.3.2 --root {}", tools.display()),
        "mkfs.btrfs" => "apt-get install -y btrfs-progs".into(),
        "mkfs.ext4" => "apt-get install -y e2fsprogs".into(),
        "setfattr" | "getfattr" => "apt-get install -y attr".into(),
        "vim" => "apt-get install -y vim".into(),
        "linux.uml" => "apt-get install -y user-mode-linux".into(),
        "slirp-fullbolt" => "apt-get install -y slirp".into(),
        "systemd-analyze" => "apt-get install -y systemd".into(),
        "nix-instantiate" | "nix" => "apt-get install -y nix-bin".into(),
        "nixpkgs-fmt" | "deadnix" => format!("tests/tools.sh {name}"),
        "insmod" => "apt-get install -y kmod".into(),
        other => format!("apt-get install -y {other}"),
    }
}

/// Panics unless this process is root: loop mounts and the POSIX suite need it.
#[track_caller]
pub fn need_root(what: &str) {
    // SAFETY: no arguments, cannot fail.
    assert!(unsafe { libc::geteuid() } == 0, "{what} needs root; run this test as root (tests/run does)");
}
