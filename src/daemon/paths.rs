//! Where everything lies on this machine: state, cache, configuration, socket.
//!
//! Linux follows the XDG base directories, macOS its own folders; a state directory given by name takes everything
//! with it, so that several devices can live on one machine. Pure: environment and user are arguments.
//! Not here: making the directories.

use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The environment as an argument.
pub type Env = BTreeMap<String, String>;

/// Whose customs are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Linux and other systems with XDG directories.
    Linux,
    /// macOS.
    MacOs,
}

impl Platform {
    /// The one this program was built for. For tests, `TCFS_TEST_PLATFORM=macos` in the environment makes it a Mac wherever
    /// that is a matter of programs and directories: then it is the test that has put such programs on the PATH.
    pub fn here() -> Platform {
        let as_a_mac = std::env::var_os("TCFS_TEST_PLATFORM").is_some_and(|v| v == "macos");
        if cfg!(target_os = "macos") || as_a_mac { Platform::MacOs } else { Platform::Linux }
    }
}

/// Longest socket path used as it is. `sun_path` has 108 bytes on Linux and 104 on macOS, the end mark included.
pub const SOCKET_PATH_MAX: usize = 100;

/// The directories of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirs {
    /// Database, overlays, identity, log, socket.
    pub state: PathBuf,
    /// Chunk cache, unless the configuration moves it.
    pub cache: PathBuf,
}

impl Dirs {
    /// The platform's own, or all under `given`.
    pub fn new(given: Option<PathBuf>, platform: Platform, env: &Env) -> Result<Dirs> {
        if let Some(state) = given {
            return Ok(Dirs { cache: state.join("cache"), state });
        }
        let (state, cache) = match platform {
            Platform::Linux => (base(env, "XDG_STATE_HOME", ".local/state"), base(env, "XDG_CACHE_HOME", ".cache")),
            Platform::MacOs => (base(env, "", "Library/Application Support"), base(env, "", "Library/Caches")),
        };
        let none = || {
            Error::new(Kind::Usage, "HOME is not set, so there is no place for the state of the drive")
                .hint("set HOME, or say where: tcfs --state-dir /var/lib/tcfs …  (or TCFS_STATE_DIR)")
        };
        Ok(Dirs { state: state.ok_or_else(none)?.join("tcfs"), cache: cache.ok_or_else(none)?.join("tcfs") })
    }

    /// Log file of the daemon.
    pub fn log(&self) -> PathBuf {
        self.state.join("log").join("tcfs.log")
    }

    /// Output of a daemon that could not open its log yet, and panics.
    pub fn startup_log(&self) -> PathBuf {
        self.state.join("log").join("startup.log")
    }

    /// Lock file of the state's owner.
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The embedded store.
    pub fn store(&self) -> PathBuf {
        self.state.join("store")
    }

    /// The daemon's socket: in the state directory, or a short one named for it where that path is too long.
    pub fn socket(&self, uid: u32) -> PathBuf {
        let plain = self.state.join("tcfs.sock");
        if plain.as_os_str().len() <= SOCKET_PATH_MAX {
            return plain;
        }
        let hash = blake3::hash(self.state.as_os_str().as_encoded_bytes()).to_hex();
        PathBuf::from(format!("/tmp/tcfs-{uid}")).join(format!("{}.sock", &hash[..16]))
    }
}

/// The directory of a socket that has the short name below `/tmp`.
pub fn short_dir(socket: &Path) -> Option<&Path> {
    let dir = socket.parent()?;
    let ours = dir.parent() == Some(Path::new("/tmp")) && dir.file_name()?.to_str()?.starts_with("tcfs-");
    (ours && socket.file_name()? != "tcfs.sock").then_some(dir)
}

/// The config file that is read when none is named; none where there is no home.
pub fn default_config_file(given_state: Option<&Path>, platform: Platform, env: &Env) -> Option<PathBuf> {
    if let Some(state) = given_state {
        return Some(state.join("config.toml"));
    }
    let dir = match platform {
        Platform::Linux => base(env, "XDG_CONFIG_HOME", ".config"),
        Platform::MacOs => base(env, "", "Library/Application Support"),
    };
    Some(dir?.join("tcfs").join("config.toml"))
}

/// The home directory.
pub fn home(env: &Env) -> Option<PathBuf> {
    env.get("HOME").map(PathBuf::from).filter(|p| p.is_absolute())
}

/// An XDG directory: its variable if that holds an absolute path (the specification says to ignore others), else
/// its place below the home directory.
pub(super) fn base(env: &Env, variable: &str, below_home: &str) -> Option<PathBuf> {
    env.get(variable).map(PathBuf::from).filter(|p| p.is_absolute()).or_else(|| Some(home(env)?.join(below_home)))
}

/// Takes out `.`, `..` and doubled slashes by their text alone; symbolic links are not looked at.
pub fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for c in path.components() {
        match c {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn linux_follows_xdg_and_ignores_relative_values() {
        let d =
            Dirs::new(None, Platform::Linux, &env(&[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/fast"), ("XDG_STATE_HOME", "rel")])).unwrap();
        assert_eq!(d, Dirs { state: "/home/u/.local/state/tcfs".into(), cache: "/fast/tcfs".into() });
        assert_eq!(
            default_config_file(None, Platform::Linux, &env(&[("HOME", "/home/u")])),
            Some("/home/u/.config/tcfs/config.toml".into())
        );
    }

    #[test]
    fn macos_uses_its_library() {
        let e = env(&[("HOME", "/Users/u"), ("XDG_STATE_HOME", "/x")]);
        let d = Dirs::new(None, Platform::MacOs, &e).unwrap();
        assert_eq!(d.state, Path::new("/Users/u/Library/Application Support/tcfs"));
        assert_eq!(d.cache, Path::new("/Users/u/Library/Caches/tcfs"));
        assert_eq!(default_config_file(None, Platform::MacOs, &e), Some("/Users/u/Library/Application Support/tcfs/config.toml".into()));
    }

    #[test]
    fn without_home_a_sentence_helps_and_a_state_dir_suffices() {
        let e = Dirs::new(None, Platform::Linux, &env(&[])).unwrap_err();
        assert!(e.to_string().contains("HOME") && e.hint_text().unwrap().contains("--state-dir"), "{e:?}");
        let d = Dirs::new(Some("/s".into()), Platform::Linux, &env(&[])).unwrap();
        assert_eq!((d.cache.as_path(), d.store().as_path()), (Path::new("/s/cache"), Path::new("/s/store")));
        assert_eq!(default_config_file(Some(Path::new("/s")), Platform::Linux, &env(&[])), Some("/s/config.toml".into()));
        assert_eq!(default_config_file(None, Platform::Linux, &env(&[])), None);
    }

    #[test]
    fn a_long_socket_path_is_replaced_by_a_short_one_of_its_own() {
        let at = |n: usize| Dirs { state: format!("/{}", "s".repeat(n)).into(), ..Dirs::default() }.socket(1000);
        let fits = at(SOCKET_PATH_MAX - 1 - "/tcfs.sock".len());
        assert_eq!(fits.as_os_str().len(), SOCKET_PATH_MAX);
        let (a, b) = (at(SOCKET_PATH_MAX), at(SOCKET_PATH_MAX + 1));
        assert!(a.starts_with("/tmp/tcfs-1000") && a.as_os_str().len() < 50 && a != b, "{a:?} {b:?}");
        assert_eq!((short_dir(&a), short_dir(&fits)), (Some(Path::new("/tmp/tcfs-1000")), None));
        assert_eq!(short_dir(Path::new("/tmp/tcfs-1/tcfs.sock")), None);
    }

    #[test]
    fn dots_are_taken_out() {
        assert_eq!(normalize(Path::new("/a/./b//../c/")), Path::new("/a/c"));
        assert_eq!(normalize(Path::new("/../..")), Path::new("/"));
    }
}
