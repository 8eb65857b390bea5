//! Where the drive may be mounted: not over files, nor around or inside its own directories.

use super::super::paths::normalize;
use crate::error::{Error, IoContext, Kind, Result};
use std::path::{Path, PathBuf};

/// Directories of ours that no mount may cover or lie in, with what they are.
pub type Keep<'a> = [(&'a str, &'a Path)];

/// Refuses a mountpoint where files would be hidden or the drive would stand on itself; makes the directory if it
/// does not exist. Returns it without symbolic links.
pub fn prepare_mountpoint(mountpoint: &Path, keep: &Keep<'_>) -> Result<PathBuf> {
    let real = resolve(mountpoint);
    for (what, dir) in keep {
        let dir = resolve(dir);
        let shown = mountpoint.display();
        if real.starts_with(&dir) {
            return Err(Error::new(Kind::Usage, format!("{shown} lies inside the {what} of the drive ({})", dir.display()))
                .hint("mount it elsewhere: tcfs mount ~/tcfs"));
        }
        if dir.starts_with(&real) {
            return Err(Error::new(Kind::Usage, format!("{shown} contains the {what} of the drive ({})", dir.display()))
                .hint("mount it on a directory of its own: tcfs mount ~/tcfs"));
        }
    }
    let doing = || format!("preparing the mountpoint {}", mountpoint.display());
    std::fs::create_dir_all(&real).map_err(|e| match e.raw_os_error() {
        Some(libc::EEXIST | libc::ENOTDIR) => Error::new(Kind::NotDir, format!("{} is not a directory", mountpoint.display())),
        _ => Error::io(doing(), e).hint("make it yourself, or mount elsewhere"),
    })?;
    let mut first = std::fs::read_dir(&real).doing(doing)?;
    if let Some(entry) = first.next() {
        let name = entry.doing(doing)?.file_name();
        let at = mountpoint.display();
        return Err(Error::new(
            Kind::NotEmpty,
            format!("{at} is not empty (it has {} in it), a mount would hide that", Path::new(&name).display()),
        )
        .hint(format!("to bring its content into the drive: mv {at} {at}.old && tcfs mount {at} && cp -a {at}.old/. {at}/")));
    }
    Ok(real)
}

/// The path without symbolic links as far as it exists, by text beyond.
pub fn resolve(path: &Path) -> PathBuf {
    let path = normalize(path);
    let mut rest = Vec::new();
    let mut at = path.as_path();
    loop {
        if let Ok(real) = at.canonicalize() {
            return rest.iter().rev().fold(real, |p, c| p.join(c));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                at = parent;
            }
            _ => return path,
        }
    }
}
