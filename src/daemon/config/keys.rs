//! Every key of the configuration, once: name, meaning, how it is set and shown. File, environment, `config show`
//! and the documentation are all made from this table, so that none of them can forget one.

use super::Config;
use super::value::{Base, Raw, Value};

type Set = fn(&mut Config, &Raw, &Base) -> Result<(), String>;
type Get = fn(&Config) -> Option<String>;

/// A key.
pub struct Key {
    /// Dotted name, as in the file.
    pub name: &'static str,
    /// Its value is not shown to anybody.
    pub secret: bool,
    /// Variables of other programs that stand in when neither file nor `TCFS_…` set it.
    pub ambient: &'static [&'static str],
    /// What it does; the part after a newline is the default where the value does not say it.
    pub doc: &'static str,
    /// Sets it.
    pub set: Set,
    /// The value in TOML; none where nothing is set.
    pub get: Get,
}

impl Key {
    /// Its environment variable: `s3.endpoint` → `TCFS_S3_ENDPOINT`.
    pub fn env(&self) -> String {
        format!("TCFS_{}", self.name.replace('.', "_").to_uppercase())
    }
}

macro_rules! key {
    ($name:literal, $($field:ident).+, $doc:literal) => {
        key!($name, $($field).+, $doc, false, &[])
    };
    ($name:literal, $($field:ident).+, $doc:literal, $secret:literal, $ambient:expr) => {
        Key {
            name: $name,
            secret: $secret,
            ambient: $ambient,
            doc: $doc,
            set: |c, raw, base| { c.$($field).+ = Value::read(raw, base)?; Ok(()) },
            get: |c| c.$($field).+.show(),
        }
    };
}

/// All keys, in the order of the documentation.
pub static KEYS: &[Key] = &[
    key!("store", store, "Where the fleet's data lies: file:///DIR or s3://BUCKET/PREFIX"),
    key!("state_dir", dirs.state, "Database, unpublished data, identity, log, socket"),
    key!("mountpoint", mountpoint, "Where `tcfs mount` mounts when no path is given"),
    key!("device_name", device_name, "Name under which this machine enrols"),
    key!("conflict_mode", conflict_mode, "What a path in conflict shows here: auto, interactive or defer"),
    key!("sync_git_dirs", sync_git_dirs, "Take git repositories along (otherwise .git stays on each machine)"),
    key!("git_sync_mode", git_sync_mode, "How repositories travel: bundle (as one unit) or raw"),
    key!("exclude_patterns", exclude_patterns, "Names that never leave this machine (gitignore syntax)"),
    key!("write_mode", write_mode, "back: a close returns when the bytes are safe here, publishing follows"),
    key!("poll_interval", poll_interval, "How often the store is asked for news\n5s for a directory, 30s for S3"),
    Key {
        get: |c| c.nats_url.as_deref().map(|u| super::value::quoted(&redact(u))),
        ..key!("nats_url", nats_url, "Event bus; without it the store is polled\nno bus")
    },
    key!("nats.token", nats.token, "Token for the event bus", true, &[]),
    key!("nats.token_file", nats.token_file, "File with the token"),
    key!("nats.user", nats.user, "User of the event bus"),
    key!("nats.password", nats.password, "Its password", true, &[]),
    key!("nats.password_file", nats.password_file, "File with the password"),
    key!("nats.nkey_file", nats.nkey_file, "File with the seed of an nkey"),
    key!("nats.creds_file", nats.creds_file, "NATS credentials file (JWT and seed)"),
    key!("nats.ca_file", nats.ca_file, "Certificate authority for TLS, PEM; makes TLS a must"),
    key!("nats.hub", nats.hub, "JetStream domain of the hub, where the server is a leaf node"),
    key!("s3.endpoint", s3.endpoint, "URL of the S3 server\nAWS", false, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    key!("s3.region", s3.region, "Region", false, &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    key!("s3.allow_http", s3.allow_http, "Accept an endpoint without TLS"),
    key!("s3.access_key_id", s3.access_key_id, "Access key", true, &[]),
    key!("s3.access_key_id_file", s3.access_key_id_file, "File with the access key"),
    key!("s3.secret_access_key", s3.secret_access_key, "Secret key", true, &[]),
    key!("s3.secret_access_key_file", s3.secret_access_key_file, "File with the secret key"),
    key!("s3.session_token", s3.session_token, "Session token of temporary credentials", true, &[]),
    key!("s3.session_token_file", s3.session_token_file, "File with the session token"),
    key!("s3.credentials_file", s3.credentials_file, "Credentials in AWS's shared format (INI)"),
    key!("s3.profile", s3.profile, "Section of that file", false, &["AWS_PROFILE"]),
    key!("cache.max_bytes", cache.max_bytes, "Most bytes kept here\nthe smaller of 50GiB and 20 % of the disk"),
    key!("cache.dir", cache.dir, "Where hydrated bytes lie"),
    key!("cache.hydrate_whole_below", cache.hydrate_whole_below, "Opening a smaller file brings all of it"),
    key!("cache.min_free", cache.min_free, "Free space on that disk (at most a tenth of it) below which the cache shrinks"),
    key!("hydration.deny", hydration.deny, "Programs that cannot open a file which is not all here (Linux, FUSE)"),
    key!("hydration.cached_only", hydration.cached_only, "Programs that read what is here and bring nothing (Linux, FUSE)"),
    key!("hydration.range_only", hydration.range_only, "Programs that bring what they read and nothing around it (Linux, FUSE)"),
    key!("brake.enabled", brake.enabled, "Whether many deletes at once wait for `tcfs approve` on other machines"),
    key!("brake.files", brake.files, "So many files deleted or emptied within a minute are still few"),
    key!("brake.percent", brake.percent, "So is this share of what is in the drive; the greater of the two counts"),
    key!("gc.enabled", gc.enabled, "Whether this machine takes its turn in removing what nothing needs from the store"),
    key!("nfs.port", nfs.port, "Port of the NFS server on the loopback\nchosen once and kept"),
    key!("log.level", log.level, "error, warn, info, debug or trace"),
    key!("log.max_bytes", log.max_bytes, "Size at which the log file is rotated"),
    key!("log.keep", log.keep, "Rotated log files kept"),
];

/// A URL, or several with commas between them, without the user and password in it.
pub fn redact(urls: &str) -> String {
    let one = |url: &str| match url.split_once("://").and_then(|(s, rest)| Some((s, rest.split('/').next()?.rsplit_once('@')?.0, rest))) {
        Some((scheme, user, rest)) => format!("{scheme}://…{}", &rest[user.len()..]),
        None => url.to_owned(),
    };
    urls.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// The key or table that somebody who wrote `name` most likely meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let wanted = name.replace('-', "_").to_lowercase();
    // A right last part in the wrong table is the likelier mistake than three wrong letters.
    let leaf = wanted.rsplit('.').next().unwrap_or(&wanted);
    let by_leaf = || KEYS.iter().find(|k| k.name.rsplit('.').next() == Some(leaf)).map(|k| k.name);
    KEYS.iter()
        .map(|k| (distance(&wanted, k.name), k.name))
        .min()
        .filter(|(d, _)| *d <= 1 + wanted.len() / 5)
        .map(|(_, n)| n)
        .or_else(by_leaf)
}

/// Levenshtein's distance: least number of letters added, dropped or changed.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left_above = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = left_above + usize::from(ca != *cb);
            left_above = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(left_above + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        assert_eq!(nearest("stroe"), Some("store"));
        assert_eq!(nearest("conflict-mode"), Some("conflict_mode"));
        assert_eq!(nearest("s3.endpiont"), Some("s3.endpoint"));
        assert_eq!(nearest("endpoint"), Some("s3.endpoint"));
        assert_eq!(nearest("max_bytes"), Some("cache.max_bytes"));
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn names_and_variables_are_unique() {
        for (i, a) in KEYS.iter().enumerate() {
            for b in &KEYS[i + 1..] {
                assert_ne!(a.name, b.name);
                assert_ne!(a.env(), b.env());
            }
        }
        assert_eq!(find("s3.access_key_id").unwrap().env(), "TCFS_S3_ACCESS_KEY_ID");
    }

    #[test]
    fn urls_lose_their_password() {
        assert_eq!(redact("nats://leaf:p@ss@127.0.0.1:4222"), "nats://…@127.0.0.1:4222");
        assert_eq!(redact("nats://127.0.0.1:4222/a@b"), "nats://127.0.0.1:4222/a@b");
        assert_eq!(redact("127.0.0.1"), "127.0.0.1");
        assert_eq!(redact("nats://a:b@h:1,tls://c:d@h:2"), "nats://…@h:1,tls://…@h:2");
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")), (3, 3, 0));
    }
}
