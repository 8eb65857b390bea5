//! Whether git did anything in a repository since it was last looked at.

use crate::error::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What changes when git does anything in a repository: a number over names, sizes and times of what it writes last.
pub(super) fn fingerprint(work: &Path) -> Result<u64> {
    let dir = work.join(".git");
    let mut h = blake3::Hasher::new();
    let mut todo = vec![dir.clone()];
    while let Some(at) = todo.pop() {
        let entries = match std::fs::read_dir(&at) {
            Ok(e) => e,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(Error::io(format!("listing {}", at.display()), e)),
        };
        let mut names: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        names.sort();
        for p in names {
            let Ok(m) = p.symlink_metadata() else { continue };
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("tcfs.") || name.starts_with(".tcfs.") || name == "objects" {
                continue;
            }
            h.update(format!("{} {} {} {}\n", p.display(), m.len(), m.mtime(), m.mtime_nsec()).as_bytes());
            let top = at == dir;
            if m.is_dir() && (!top || name == "refs" || name == "logs") && !p.ends_with("refs/tcfs") {
                todo.push(p);
            }
        }
    }
    let mut n = [0; 8];
    n.copy_from_slice(&h.finalize().as_bytes()[..8]);
    Ok(u64::from_le_bytes(n))
}
