//! PATH arguments: from what a person typed to a path of the namespace.
//!
//! Absolute, or relative with the working directory inside a mount: that file. Otherwise from the namespace root,
//! with the store's bucket and prefix (`tcfs/default/`) taken off in front, unless such an entry exists.
//! Must: a symbolic link in the last component is never followed, it may be what is meant.

use super::config::StoreUrl;
use super::paths::normalize;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// What the resolution looks at.
pub struct Place<'a> {
    /// Working directory, without symbolic links.
    pub cwd: &'a Path,
    /// Mountpoints of this device's daemon, without symbolic links.
    pub mounts: &'a [PathBuf],
    /// The same path with symbolic links in its parents resolved; the path itself where that fails.
    pub real: &'a dyn Fn(&Path) -> PathBuf,
    /// Whether something outside the drive is there.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// The namespace path that `text` means, for the PATH fields of requests: with a leading `/` where it is exact,
/// without where the service may still take the store's words off. A trailing `/` is kept.
pub fn resolve(text: &str, place: &Place<'_>) -> Result<String> {
    let slash = if text.len() > 1 && text.ends_with('/') { "/" } else { "" };
    let typed = Path::new(text);
    let inside = |p: &Path| place.mounts.iter().find_map(|m| p.strip_prefix(m).ok().map(Path::to_owned));
    if typed.is_absolute() || inside(place.cwd).is_some() {
        let plain = normalize(&place.cwd.join(typed));
        if let Some(rel) = inside(&plain).or_else(|| inside(&(place.real)(&plain))) {
            let rel = rel.to_str().ok_or_else(|| Error::new(Kind::NotUtf8, format!("{}: the name is not UTF-8", rel.display())))?;
            return Ok(if rel.is_empty() { "/".to_owned() } else { format!("/{rel}{slash}") });
        }
        if plain != Path::new("/") && (!typed.is_absolute() || (place.exists)(&plain)) {
            let e = Error::new(Kind::Usage, format!("{} is not in the drive", plain.display()));
            return Err(match place.mounts.first() {
                Some(m) => e.hint(format!("name a file below {}, or a path from the root of the drive such as notes/plan.md", m.display())),
                None => e.hint("name it from the root of the drive, as in notes/plan.md; nothing is mounted at the moment"),
            });
        }
    }
    // From the root of the namespace. `..` has no meaning there beyond the root.
    let rel = normalize(&Path::new("/").join(text.trim_start_matches('/')));
    let rel = rel.to_str().unwrap_or_default().trim_start_matches('/').to_owned();
    Ok(if rel.is_empty() { "/".to_owned() } else { format!("{rel}{slash}") })
}

/// For the service: takes the store's words off a typed path. None: the path does not begin with them.
///
/// A leading `/` means exact, so nothing is taken off. The caller first asks whether an entry of the whole name
/// exists; then that one is meant.
pub fn strip_store_words<'p>(path: &'p str, store: &StoreUrl) -> Option<&'p str> {
    let (bucket, prefix) = store.words();
    let rest = path.strip_prefix(bucket)?.strip_prefix('/')?.strip_prefix(prefix)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// Resolves symbolic links in the parents of `path`, not in its last component.
pub fn real_parent(path: &Path) -> PathBuf {
    match (path.parent().and_then(|p| p.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cwd: &str, text: &str) -> Result<String> {
        let mounts = [PathBuf::from("/home/u/tcfs")];
        let place = Place {
            cwd: Path::new(cwd),
            mounts: &mounts,
            real: &|p| p.strip_prefix("/home/u/link").map_or(p.to_owned(), |r| Path::new("/home/u/tcfs").join(r)),
            exists: &|p| p.starts_with("/tmp"),
        };
        resolve(text, &place)
    }

    #[test]
    fn inside_a_mount_a_path_is_that_file() {
        for (cwd, text, want) in [
            ("/", "/home/u/tcfs/notes/plan.md", "/notes/plan.md"),
            ("/", "/home/u/tcfs", "/"),
            ("/", "/home/u/tcfs/", "/"),
            ("/", "/home/u/link/a", "/a"),
            ("/home/u/tcfs/notes", "plan.md", "/notes/plan.md"),
            ("/home/u/tcfs/notes", ".", "/notes"),
            ("/home/u/tcfs/notes", "../x/", "/x/"),
            ("/home/u/tcfs", "tcfs/default/a", "/tcfs/default/a"),
        ] {
            assert_eq!(at(cwd, text).unwrap(), want, "{text} in {cwd}");
        }
    }

    #[test]
    fn elsewhere_it_counts_from_the_root_of_the_namespace() {
        for (text, want) in [
            ("notes/plan.md", "notes/plan.md"),
            ("", "/"),
            ("/", "/"),
            (".", "/"),
            ("dir/", "dir/"),
            ("a/../b", "b"),
            ("/notes/x", "notes/x"),
        ] {
            assert_eq!(at("/home/u", text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn a_local_path_outside_the_drive_is_refused_with_a_hint() {
        for (cwd, text) in [("/", "/tmp/a"), ("/home/u/tcfs", "../other")] {
            let e = at(cwd, text).unwrap_err();
            assert!(e.kind() == Kind::Usage && e.hint_text().unwrap().contains("/home/u/tcfs"), "{e:?}");
        }
    }

    #[test]
    fn the_words_of_the_store_come_off_once() {
        let s3 = StoreUrl::S3 { bucket: "fleet".into(), prefix: "a/b".into() };
        assert_eq!(strip_store_words("fleet/a/b/x", &s3), Some("x"));
        assert_eq!(strip_store_words("fleet/a/bx", &s3), None);
        let dir = StoreUrl::Dir("/srv".into());
        assert_eq!(strip_store_words("tcfs/default/notes.txt", &dir), Some("notes.txt"));
        assert_eq!(strip_store_words("tcfs/default", &dir), Some(""));
        assert_eq!(strip_store_words("/tcfs/default/notes.txt", &dir), None);
        assert_eq!(strip_store_words("tcfs", &dir), None);
    }
}
