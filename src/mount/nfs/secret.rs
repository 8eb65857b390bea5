//! What keeps others out of the export, and stays as it is across restarts: port, path and mark of its handles.
//!
//! Any local user can reach a port of the loopback and say that he is somebody else. Must: the file is readable by its
//! owner only; what is in it is never printed but in the command that mounts.

use crate::clock::Clock;
use crate::error::{Error, IoContext, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the file in the state directory.
const FILE: &str = "nfs.json";

/// The export of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Secret {
    /// The port last served on, 0 for none yet.
    pub(super) port: u16,
    /// The path that a client has to name, without its first slash.
    pub(super) export: String,
    /// How each handle begins.
    pub(super) handles: [u8; 16],
    /// The file system's number, as clients see it.
    pub(super) fsid: u64,
}

impl Secret {
    /// The path that a client has to name.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.export)
    }

    /// The one in `state_dir`, if there is one that can be read.
    pub(super) fn last(state_dir: &Path) -> Option<Secret> {
        serde_json::from_slice(&std::fs::read(state_dir.join(FILE)).ok()?).ok()
    }

    /// The one in `state_dir`, or a new one that is not written yet.
    ///
    /// Errors: `Corrupt` with what to do for a damaged file; of the disk.
    pub(super) fn load(state_dir: &Path, clock: &dyn Clock) -> Result<Secret> {
        let path = state_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                Error::new(Kind::Corrupt, format!("reading {}: {e}", path.display()))
                    .hint(format!("remove it and mount again: rm {}", path.display()))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let random = [clock.random(), clock.random(), clock.random(), clock.random(), clock.random()];
                let mut handles = [0; 16];
                handles[..8].copy_from_slice(&random[0].to_le_bytes());
                handles[8..].copy_from_slice(&random[1].to_le_bytes());
                Ok(Secret { port: 0, export: format!("tcfs-{:016x}{:016x}", random[2], random[3]), handles, fsid: random[4] })
            }
            Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
        }
    }

    /// Writes it, for its owner only.
    pub(super) fn save(&self, state_dir: &Path) -> Result<()> {
        let (path, new) = (state_dir.join(FILE), state_dir.join(".nfs.json.new"));
        let doing = || format!("writing {}", path.display());
        let text = serde_json::to_vec(self).map_err(|e| Error::new(Kind::Internal, doing()).source(e))?;
        // One that a kill left behind may have any mode.
        let _ = std::fs::remove_file(&new);
        let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).doing(doing)?;
        f.write_all(&text).and_then(|()| f.sync_all()).doing(doing)?;
        std::fs::rename(&new, &path).doing(doing)?;
        std::fs::File::open(state_dir).and_then(|d| d.sync_all()).doing(doing)
    }
}
