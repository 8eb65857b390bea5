//! The configuration: every key from defaults, file, environment and flags, in this order of precedence.
//!
//! Must: an unknown key is an error that names the nearest one. Must: what is loaded depends on [`Sources`] alone.
//! Not here: what the keys do.

pub mod credentials;
pub mod file;
pub mod keys;
pub mod value;
mod warnings;

pub use value::{ConflictMode, DeviceName, GitSyncMode, LogLevel, Size, Span, StoreUrl, WriteMode, parse_store};

use super::paths::{self, Dirs, Env, Platform};
use crate::error::{Error, Kind, Result};
use crate::fleet::nats::NatsOptions;
use crate::vfs::{BrakeOptions, ReaderRules};
use keys::{KEYS, Key};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use value::{Base, Raw};

/// Where values come from; everything that loading looks at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Whose directories.
    pub platform: Platform,
    /// Environment variables.
    pub env: Env,
    /// Working directory.
    pub cwd: PathBuf,
    /// Host name.
    pub host: String,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// Key, value and name of each flag that was given.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

impl Sources {
    /// Those of this process, without flags. Variables that are not UTF-8 are passed over.
    pub fn of_process() -> Sources {
        Sources {
            platform: Platform::here(),
            env: std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect(),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            config_file: None,
            flags: Vec::new(),
        }
    }

    /// A variable; an empty one counts as unset.
    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A variable of another program that stands in.
    Ambient(String),
    /// The config file, on this line.
    File(usize),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
}

impl Origin {
    /// Later sources win.
    fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::Ambient(_) => 1,
            Origin::File(_) => 2,
            Origin::Env(_) => 3,
            Origin::Flag(_) => 4,
        }
    }
}

/// `[s3]`.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Server; none: AWS.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Accept `http://`.
    pub allow_http: bool,
    access_key_id: Option<String>,
    access_key_id_file: Option<PathBuf>,
    secret_access_key: Option<String>,
    secret_access_key_file: Option<PathBuf>,
    session_token: Option<String>,
    session_token_file: Option<PathBuf>,
    credentials_file: Option<PathBuf>,
    profile: String,
}

/// `[nats]`.
#[derive(Clone, Debug, Default)]
pub struct NatsConfig {
    token: Option<String>,
    token_file: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    nkey_file: Option<PathBuf>,
    hub: Option<String>,
    /// Credentials file.
    pub creds_file: Option<PathBuf>,
    /// Certificate authority.
    pub ca_file: Option<PathBuf>,
}

/// `[cache]`.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Cap in bytes; none: [`CacheConfig::cap`] decides.
    pub max_bytes: Option<Size>,
    /// Directory.
    pub dir: PathBuf,
    /// Opening a smaller file brings all of it.
    pub hydrate_whole_below: Size,
    /// Free bytes on its disk below which it shrinks.
    pub min_free: Size,
}

impl CacheConfig {
    /// The cap on a disk of `disk` bytes: as configured, else the smaller of 50 GiB and a fifth of the disk.
    pub fn cap(&self, disk: u64) -> u64 {
        self.max_bytes.map_or((50u64 << 30).min(disk / 5), |s| s.0)
    }
}

/// Garbage collection.
#[derive(Clone, Debug, PartialEq)]
pub struct GcConfig {
    /// Whether this machine takes its turn.
    pub enabled: bool,
}

/// `[nfs]`.
#[derive(Clone, Debug, Default)]
pub struct NfsConfig {
    /// Port on the loopback; none: chosen once and kept.
    pub port: Option<u16>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// Size at which the file is rotated.
    pub max_bytes: Size,
    /// Rotated files kept.
    pub keep: u64,
}

/// Everything that can be set, as it holds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories.
    pub dirs: Dirs,
    /// The config file that was read.
    pub file: Option<PathBuf>,
    /// The config file that is or would be read.
    pub file_path: Option<PathBuf>,
    /// The store.
    pub store: StoreUrl,
    /// Default mountpoint; none where there is no home.
    pub mountpoint: Option<PathBuf>,
    /// Name to enrol under.
    pub device_name: DeviceName,
    /// What a path in conflict shows.
    pub conflict_mode: ConflictMode,
    /// Take git repositories along.
    pub sync_git_dirs: bool,
    /// How.
    pub git_sync_mode: GitSyncMode,
    /// Names that stay here.
    pub exclude_patterns: Vec<String>,
    /// When a write counts as done.
    pub write_mode: WriteMode,
    poll_interval: Option<Span>,
    /// The bus; may hold a password.
    pub nats_url: Option<String>,
    /// `[nats]`.
    pub nats: NatsConfig,
    /// `[s3]`.
    pub s3: S3Config,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[brake]`.
    pub brake: BrakeOptions,
    /// Which programs do not bring files here.
    pub hydration: ReaderRules,
    /// `[gc]`.
    pub gc: GcConfig,
    /// `[nfs]`.
    pub nfs: NfsConfig,
    /// `[log]`.
    pub log: LogConfig,
    origins: BTreeMap<&'static str, Origin>,
    aws_env: Env,
    home: Option<PathBuf>,
    warnings: Vec<String>,
}

impl Config {
    /// The config file that is read, none where there is no home, and whether it must exist.
    pub fn file_of(sources: &Sources) -> Result<(Option<PathBuf>, bool)> {
        let named = match &sources.config_file {
            Some(f) => Some(f.clone()),
            None => sources.var("TCFS_CONFIG").map(PathBuf::from),
        };
        Ok(match named {
            Some(f) => (Some(paths::normalize(&sources.cwd.join(f))), true),
            None => (paths::default_config_file(given_state(sources)?.as_deref(), sources.platform, &sources.env), false),
        })
    }

    /// Loads from `sources`, reading the config file.
    pub fn load(sources: &Sources) -> Result<Config> {
        let (path, must_exist) = Config::file_of(sources)?;
        let text = match &path {
            None => None,
            Some(p) => match std::fs::read_to_string(p) {
                Ok(t) => Some(t),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) && !must_exist => None,
                Err(e) => {
                    return Err(Error::new(Kind::Usage, format!("reading the config file {}", p.display()))
                        .source(e)
                        .hint("`tcfs config path` shows which file is read; --config FILE names another"));
                }
            },
        };
        Config::from_text(sources, path, text.as_deref())
    }

    /// Loads from `sources` and the text of a config file that stands at `path`.
    pub fn from_text(sources: &Sources, path: Option<PathBuf>, text: Option<&str>) -> Result<Config> {
        let home = paths::home(&sources.env);
        let here = Base { home: home.clone(), dir: sources.cwd.clone() };
        let shown = path.clone().unwrap_or_default();
        let beside = Base { home: home.clone(), dir: path.as_deref().and_then(Path::parent).unwrap_or(&sources.cwd).to_owned() };

        // Everything that is set, weakest first.
        let mut set: Vec<(&'static Key, Raw, Origin)> = Vec::new();
        for key in KEYS {
            if let Some((name, v)) = key.ambient.iter().find_map(|n| Some((n, sources.var(n)?))) {
                set.push((key, Raw::Text(v.to_owned()), Origin::Ambient(name.to_string())));
            }
        }
        for s in text.map(|t| file::parse(t, &shown)).transpose()?.unwrap_or_default() {
            if s.name.ends_with('.') && KEYS.iter().any(|k| k.name.starts_with(&s.name)) {
                continue;
            }
            let key = keys::find(&s.name).ok_or_else(|| unknown(&s.name, &shown, s.line))?;
            set.push((key, s.raw, Origin::File(s.line)));
        }
        for key in KEYS {
            let name = key.env();
            if let Some(v) = sources.var(&name) {
                set.push((key, Raw::Text(v.to_owned()), Origin::Env(name)));
            }
        }
        for (name, v, flag) in &sources.flags {
            let key = keys::find(name).ok_or_else(|| Error::new(Kind::Internal, format!("flag {flag} sets no key: {name}")))?;
            set.push((key, Raw::Text(v.clone()), Origin::Flag(flag.to_string())));
        }

        // The state directory first: other defaults lie in it.
        let state = match set.iter().rev().find(|(k, _, _)| k.name == "state_dir") {
            None => None,
            Some((key, raw, origin)) => {
                let base = if matches!(origin, Origin::File(_)) { &beside } else { &here };
                Some(<PathBuf as value::Value>::read(raw, base).map_err(|why| bad_value(key, origin, &shown, &why))?)
            }
        };
        let mut config = Config::defaults(Dirs::new(state, sources.platform, &sources.env)?, home, &sources.host);
        config.file = text.and(path.clone());
        config.file_path = path;
        config.aws_env = sources.env.iter().filter(|(k, _)| k.starts_with("AWS_")).map(|(k, v)| (k.clone(), v.clone())).collect();
        for (key, raw, origin) in set {
            let base = if matches!(origin, Origin::File(_)) { &beside } else { &here };
            (key.set)(&mut config, &raw, base).map_err(|why| bad_value(key, &origin, &shown, &why))?;
            config.origins.insert(key.name, origin);
        }
        for name in sources.env.keys().filter(|n| n.starts_with("TCFS_")) {
            // No keys: which file to read, faults to inject into a store, and what only tests look at.
            if name != "TCFS_CONFIG" && name != "TCFS_FAULT" && !name.starts_with("TCFS_TEST_") && !KEYS.iter().any(|k| k.env() == *name) {
                let near = keys::nearest(&name["TCFS_".len()..].to_lowercase()).and_then(keys::find);
                let near = near.map_or(String::new(), |k| format!("; did you mean {}?", k.env()));
                config.warnings.push(format!("the environment variable {name} means nothing to tcfs{near}"));
            }
        }
        Ok(config)
    }

    fn defaults(dirs: Dirs, home: Option<PathBuf>, host: &str) -> Config {
        Config {
            store: StoreUrl::Dir(dirs.store()),
            mountpoint: home.as_ref().map(|h| h.join("tcfs")),
            device_name: DeviceName::from_host(host),
            conflict_mode: ConflictMode::Auto,
            sync_git_dirs: false,
            git_sync_mode: GitSyncMode::Bundle,
            exclude_patterns: ["*.swp", "*.swo", ".direnv"].map(str::to_owned).to_vec(),
            write_mode: WriteMode::Back,
            poll_interval: None,
            nats_url: None,
            nats: NatsConfig::default(),
            s3: S3Config {
                endpoint: None,
                region: "us-east-1".to_owned(),
                allow_http: false,
                access_key_id: None,
                access_key_id_file: None,
                secret_access_key: None,
                secret_access_key_file: None,
                session_token: None,
                session_token_file: None,
                credentials_file: None,
                profile: "default".to_owned(),
            },
            cache: CacheConfig { max_bytes: None, dir: dirs.cache.clone(), hydrate_whole_below: Size(64 << 20), min_free: Size(256 << 20) },
            hydration: ReaderRules::usual(),
            brake: BrakeOptions::default(),
            gc: GcConfig { enabled: true },
            nfs: NfsConfig::default(),
            log: LogConfig { level: LogLevel::Info, max_bytes: Size(10 << 20), keep: 4 },
            file: None,
            file_path: None,
            origins: BTreeMap::new(),
            aws_env: Env::new(),
            warnings: Vec::new(),
            dirs,
            home,
        }
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// How often the store is asked for news: as configured, else 5 s for a directory and 30 s for S3.
    pub fn poll_interval(&self) -> Duration {
        let default = match self.store {
            StoreUrl::Dir(_) => Duration::from_secs(5),
            StoreUrl::S3 { .. } => Duration::from_secs(30),
        };
        self.poll_interval.map_or(default, |s| s.0)
    }

    /// The mountpoint, or what to do where there is none.
    pub fn mountpoint(&self) -> Result<&Path> {
        self.mountpoint.as_deref().ok_or_else(|| {
            Error::new(Kind::Usage, "HOME is not set, so there is no default mountpoint").hint("name one: tcfs mount /mnt/tcfs")
        })
    }

    /// The socket of this state's daemon.
    pub fn socket(&self) -> PathBuf {
        self.dirs.socket(rustix::process::getuid().as_raw())
    }

    /// A line for each key: name, value (no secrets), source.
    pub fn show(&self) -> Vec<Shown> {
        KEYS.iter()
            .map(|k| {
                let origin = self.origin(k.name);
                let value = match (k.get)(self) {
                    Some(_) if k.secret => "(set, not shown)".to_owned(),
                    Some(v) => v,
                    None => format!("({})", k.doc.split_once('\n').map_or("not set", |(_, d)| d)),
                };
                let source = match origin {
                    Origin::Default => "default".to_owned(),
                    Origin::Ambient(n) | Origin::Env(n) => format!("environment {n}"),
                    Origin::File(line) => match &self.file {
                        Some(f) => format!("{}:{line}", f.display()),
                        None => format!("line {line}"),
                    },
                    Origin::Flag(n) => format!("flag {n}"),
                };
                let about = k.doc.split('\n').next().unwrap_or_default().to_owned();
                Shown { key: k.name.to_owned(), value, source, env: k.env(), about }
            })
            .collect()
    }

    /// How to reach the event bus; none if there is none.
    ///
    /// Errors: `Usage` for settings that contradict each other, or a secret file that cannot be read.
    pub fn nats(&self) -> Result<Option<NatsOptions>> {
        let Some(url) = self.nats_url.clone() else { return Ok(None) };
        let n = &self.nats;
        let password = self.secret("nats.password", &n.password, "nats.password_file", &n.password_file)?;
        let user = match (n.user.clone(), password) {
            (Some(u), Some(p)) => Some((u, p)),
            (None, None) => None,
            _ => {
                return Err(Error::new(Kind::Usage, "nats.user and nats.password go together")
                    .hint("set both, or put them into nats_url: nats://USER:PASSWORD@HOST:4222"));
            }
        };
        let nkey = n.nkey_file.as_deref().map(|f| credentials::read_secret("nats.nkey_file", f)).transpose()?;
        Ok(Some(NatsOptions {
            shown_url: keys::redact(&url),
            url,
            token: self.secret("nats.token", &n.token, "nats.token_file", &n.token_file)?,
            user,
            creds_file: n.creds_file.clone(),
            nkey,
            ca_file: n.ca_file.clone(),
            hub: n.hub.clone(),
        }))
    }

    /// A secret that stands in a key or in a file that another key names; the stronger source wins.
    fn secret(&self, key: &str, value: &Option<String>, file_key: &str, file: &Option<PathBuf>) -> Result<Option<String>> {
        let (direct, from_file) = (self.origin(key).rank(), self.origin(file_key).rank());
        match (value, file) {
            (Some(_), Some(_)) if direct == from_file => {
                Err(Error::new(Kind::Usage, format!("{key} and {file_key} are both set")).hint("keep one of them"))
            }
            (Some(v), None) => Ok(Some(v.clone())),
            (Some(v), Some(_)) if direct > from_file => Ok(Some(v.clone())),
            (_, Some(f)) => credentials::read_secret(file_key, f).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// A line of `tcfs config show`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Shown {
    /// Name.
    pub key: String,
    /// Value in TOML, or a note in parentheses.
    pub value: String,
    /// Where it comes from.
    pub source: String,
    /// Its environment variable.
    pub env: String,
    /// What it does.
    pub about: String,
}

fn given_state(sources: &Sources) -> Result<Option<PathBuf>> {
    let base = Base { home: paths::home(&sources.env), dir: sources.cwd.clone() };
    let flag = sources.flags.iter().rev().find(|f| f.0 == "state_dir").map(|f| (f.1.as_str(), f.2));
    flag.or_else(|| sources.var("TCFS_STATE_DIR").map(|v| (v, "TCFS_STATE_DIR")))
        .map(|(v, from)| base.absolute(v).map_err(|why| Error::new(Kind::Usage, format!("{from}: {why}"))))
        .transpose()
}

fn unknown(name: &str, path: &Path, line: usize) -> Error {
    let name = name.trim_end_matches('.');
    let e = Error::new(Kind::Usage, format!("{}, line {line}: unknown key `{name}`", path.display()));
    match keys::nearest(name) {
        Some(near) => e.hint(format!("did you mean `{near}`?")),
        None => e.hint("`tcfs config show` lists all keys"),
    }
}

fn bad_value(key: &Key, origin: &Origin, path: &Path, why: &str) -> Error {
    let at = match origin {
        Origin::File(line) => format!("{}, line {line}: {}", path.display(), key.name),
        Origin::Env(n) | Origin::Ambient(n) => format!("environment variable {n}"),
        Origin::Flag(n) => n.clone(),
        Origin::Default => key.name.to_owned(),
    };
    // A wrong value of a secret key may be the secret itself, in the wrong place.
    let why = if key.secret { "this value cannot be used" } else { why };
    Error::new(Kind::Usage, format!("{at}: {why}"))
}

#[cfg(test)]
mod tests;
