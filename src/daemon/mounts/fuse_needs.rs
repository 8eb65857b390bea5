//! What the kernel and the system must offer for a FUSE mount.

use super::super::paths::Env;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The setuid program through which a user mounts FUSE.
pub fn helper(env: &Env) -> Option<PathBuf> {
    let path = env.get("PATH").map_or("", String::as_str);
    let dirs = path.split(':').filter(|d| d.starts_with('/')).chain(["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]);
    let dirs: Vec<&str> = dirs.collect();
    ["fusermount3", "fusermount"].iter().find_map(|name| dirs.iter().map(|d| Path::new(d).join(name)).find(|p| p.is_file()))
}

/// The error of a user who has no helper.
pub fn no_helper() -> Error {
    Error::new(Kind::Unsupported, "mounting as a user needs the program fusermount3, which is not installed")
        .hint("it is in the package fuse3 (apt install fuse3, dnf install fuse3, pacman -S fuse3, apk add fuse3); as root it is not needed")
}

/// Whether this user may open `/dev/fuse`; the helper looks at that, too.
pub fn may_open_fuse() -> bool {
    use rustix::fs::Access;
    rustix::fs::access("/dev/fuse", Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// The error of a user who may not.
pub fn no_access() -> Error {
    Error::new(Kind::Denied, "this user may not open /dev/fuse, so it cannot mount")
        .hint("as root: chmod 666 /dev/fuse (the rules of the package fuse3 do that at boot)")
}

/// What the kernel and the system must offer for a FUSE mount, made directly or (`helped`) through the helper.
pub fn check_fuse(helped: bool, allow_other: bool, env: &Env) -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        return Err(Error::new(Kind::Unsupported, "the kernel offers no FUSE: /dev/fuse does not exist")
            .hint("as root: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN"));
    }
    if !helped {
        // It opens the device itself.
        return if may_open_fuse() { Ok(()) } else { Err(no_access()) };
    }
    if helper(env).is_none() {
        return Err(no_helper());
    }
    if !may_open_fuse() {
        return Err(no_access());
    }
    if allow_other && !allows_other(&std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default()) {
        return Err(Error::new(Kind::Denied, "--allow-other is not permitted to users on this system")
            .hint("as root: echo user_allow_other >> /etc/fuse.conf"));
    }
    Ok(())
}

pub(super) fn allows_other(fuse_conf: &str) -> bool {
    fuse_conf.lines().any(|l| l.trim() == "user_allow_other")
}
