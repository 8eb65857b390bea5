//! What `tcfs doctor --fix` does: only what is safe whatever the reason of the trouble is.
//!
//! Must: nothing that somebody could miss is removed: no file of the drive, no unpublished byte, no log, no identity.

use super::config::Config;
use super::mounts::{Answer, clean_stale, mounted, probe};
use super::protocol::Check;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Repairs what can be repaired; a line for each thing that was done, or could not be. `serves`: a daemon answers. Blocking.
pub fn repair(config: &Config, serves: bool) -> Vec<Check> {
    let mut out = dead_mounts();
    out.extend(own_state(config, serves));
    if out.is_empty() {
        out.push(Check::ok("fix", "there was nothing to repair"));
    }
    out
}

/// What lies in the state directory.
fn own_state(config: &Config, serves: bool) -> Vec<Check> {
    let state = &config.dirs.state;
    let socket = if serves { None } else { old_socket(&config.socket()) };
    let files = ["identity.json", "events.jsonl"].into_iter().filter_map(|name| private(&state.join(name), 0o600));
    socket.into_iter().chain(private(state, 0o700)).chain(files).collect()
}

/// Mounts that a daemon left when it died.
fn dead_mounts() -> Vec<Check> {
    let ours = mounted().unwrap_or_default().into_iter().filter(|m| m.is_ours() && !m.is_nfs());
    let dead = ours.filter(|m| probe(&m.mountpoint) == Answer::Dead);
    dead.map(|m| {
        let at = m.mountpoint.display().to_string();
        match clean_stale(&m.mountpoint) {
            Ok(_) => Check::ok("fix", format!("{at}: the mount of a daemon that died is taken away")),
            Err(e) => Check::warn("fix", format!("{at}: {e}"), format!("umount -l {at}, as whoever mounted it")),
        }
    })
    .collect()
}

/// The socket of a daemon that is gone.
fn old_socket(socket: &Path) -> Option<Check> {
    let is = std::fs::symlink_metadata(socket).is_ok_and(|m| m.file_type().is_socket());
    is.then(|| match std::fs::remove_file(socket) {
        Ok(()) => Check::ok("fix", format!("{}: the socket of a daemon that is gone is removed", socket.display())),
        Err(e) => Check::warn("fix", format!("{}: {e}", socket.display()), "remove it"),
    })
}

/// Takes from others what is this user's alone.
fn private(path: &Path, mode: u32) -> Option<Check> {
    let m = std::fs::metadata(path).ok()?;
    if m.mode() & 0o077 == 0 || m.uid() != rustix::process::getuid().as_raw() {
        return None;
    }
    let at = path.display();
    Some(match std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)) {
        Ok(()) => Check::ok("fix", format!("{at}: other users could read it; its mode is {mode:o} now")),
        Err(e) => Check::warn("fix", format!("{at}: other users can read it: {e}"), format!("chmod {mode:o} {at}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::shell::tests::config_in;

    #[test]
    fn what_others_could_read_is_private_again_and_a_live_socket_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let config = config_in(tmp.path());
        let state = &config.dirs.state;
        std::fs::create_dir_all(state).unwrap();
        std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o755)).unwrap();
        let identity = state.join("identity.json");
        std::fs::write(&identity, "{}").unwrap();
        std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
        let socket = config.socket();
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        // Not `repair`: there may be a dead mount of another test.
        let done = own_state(&config, true);
        assert!(socket.exists() && done.len() == 2, "{done:?}");
        let mode = |p: &Path| std::fs::metadata(p).unwrap().mode() & 0o777;
        assert_eq!((mode(state), mode(&identity)), (0o700, 0o600));
        let done = own_state(&config, false);
        assert!(!socket.exists() && done.len() == 1, "{done:?}");
        assert_eq!(own_state(&config, false), []);
    }
}
