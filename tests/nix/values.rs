//! Values of the configuration's keys, good and bad ones, and which options of the modules stand for which keys.

use serde_json::{Value, json};

/// A key of the configuration file.
pub struct Key {
    pub name: &'static str,
    /// As they are given, and as `tcfs config show` prints them where that is different.
    pub good: Vec<(Value, Option<&'static str>)>,
    pub bad: Vec<Value>,
}

fn key(name: &'static str, good: &[Value], bad: &[Value]) -> Key {
    Key { name, good: good.iter().map(|v| (v.clone(), None)).collect(), bad: bad.to_vec() }
}

fn shown(name: &'static str, good: &[(Value, &'static str)], bad: &[Value]) -> Key {
    Key { name, good: good.iter().map(|(v, s)| (v.clone(), Some(*s))).collect(), bad: bad.to_vec() }
}

/// All keys but those that hold a secret themselves.
pub fn keys() -> Vec<Key> {
    let text = |name| key(name, &[json!("x y\"z\" ${a} 'b' \\n")], &[json!(1), json!(["x"])]);
    let file =
        |name| shown(name, &[(json!("/run/secrets/x"), "\"/run/secrets/x\""), (json!("~/x"), "\"/home/ann/x\"")], &[json!("x"), json!(1)]);
    let truth = |name| key(name, &[json!(true), json!(false)], &[json!("yes"), json!(1)]);
    let count = |name| key(name, &[json!(0), json!(77)], &[json!(-1), json!("many")]);
    let size = |name| {
        let good = [
            (json!("20GiB"), "\"20GiB\""),
            (json!(1 << 20), "\"1MiB\""),
            (json!("1.5GiB"), "\"1536MiB\""),
            (json!("512 MB"), "\"500000KiB\""),
        ];
        shown(name, &good, &[json!("much"), json!(-1), json!("20 elephants")])
    };
    let texts = |name| key(name, &[json!([]), json!(["*.log", "a b"])], &[json!("*.log"), json!([1])]);
    let one_of = |name, words: &[&str]| key(name, &words.iter().map(|w| json!(w)).collect::<Vec<_>>(), &[json!("other"), json!(true)]);
    vec![
        key("store", &[json!("file:///srv/tcfs"), json!("s3://tcfs/default")], &[json!("http://x"), json!("tcfs"), json!(1)]),
        file("state_dir"),
        file("mountpoint"),
        key("device_name", &[json!("yoga"), json!("petting-zoo-mini"), json!("a")], &[json!("Yoga"), json!("-a"), json!(""), json!("a.b")]),
        one_of("conflict_mode", &["auto", "interactive", "defer"]),
        truth("sync_git_dirs"),
        one_of("git_sync_mode", &["bundle", "raw"]),
        texts("exclude_patterns"),
        one_of("write_mode", &["back"]),
        key("poll_interval", &[json!("5s"), json!("2m"), json!("500ms")], &[json!(5), json!("soon")]),
        key("nats_url", &[json!("nats://h:4222"), json!("nats://a:1,tls://b:2")], &[json!("a b"), json!(1)]),
        file("nats.token_file"),
        text("nats.user"),
        file("nats.password_file"),
        file("nats.nkey_file"),
        file("nats.creds_file"),
        file("nats.ca_file"),
        text("nats.hub"),
        key("s3.endpoint", &[json!("https://s3.example.org:8333"), json!("http://127.0.0.1:1")], &[json!("s3.example.org"), json!(1)]),
        text("s3.region"),
        truth("s3.allow_http"),
        file("s3.access_key_id_file"),
        file("s3.secret_access_key_file"),
        file("s3.session_token_file"),
        file("s3.credentials_file"),
        text("s3.profile"),
        size("cache.max_bytes"),
        file("cache.dir"),
        size("cache.hydrate_whole_below"),
        size("cache.min_free"),
        texts("hydration.deny"),
        texts("hydration.cached_only"),
        texts("hydration.range_only"),
        truth("brake.enabled"),
        count("brake.files"),
        count("brake.percent"),
        truth("gc.enabled"),
        key("nfs.port", &[json!(2049)], &[json!(70000), json!("2049")]),
        one_of("log.level", &["error", "warn", "info", "debug", "trace"]),
        size("log.max_bytes"),
        count("log.keep"),
    ]
}

/// Options of both modules, with the key that each sets.
pub const OPTIONS: &[(&str, &str)] = &[
    ("deviceName", "device_name"),
    ("store", "store"),
    ("mountpoint", "mountpoint"),
    ("conflictMode", "conflict_mode"),
    ("syncGitDirs", "sync_git_dirs"),
    ("gitSyncMode", "git_sync_mode"),
    ("excludePatterns", "exclude_patterns"),
    ("cacheMaxBytes", "cache.max_bytes"),
    ("logLevel", "log.level"),
    ("natsUrl", "nats_url"),
    ("nats.user", "nats.user"),
    ("nats.passwordFile", "nats.password_file"),
    ("nats.tokenFile", "nats.token_file"),
    ("nats.nkeyFile", "nats.nkey_file"),
    ("nats.credsFile", "nats.creds_file"),
    ("nats.caFile", "nats.ca_file"),
    ("nats.hub", "nats.hub"),
    ("s3.endpoint", "s3.endpoint"),
    ("s3.region", "s3.region"),
    ("s3.allowHttp", "s3.allow_http"),
    ("s3.accessKeyIdFile", "s3.access_key_id_file"),
    ("s3.secretAccessKeyFile", "s3.secret_access_key_file"),
    ("s3.sessionTokenFile", "s3.session_token_file"),
    ("s3.credentialsFile", "s3.credentials_file"),
    ("s3.profile", "s3.profile"),
];

/// Options that set no key; what they do is looked at by themselves.
pub const OTHERS: &[&str] = &["enable", "package", "settings"];
/// The same, of NixOS only.
pub const DAEMON_ONLY: &[&str] = &["user", "group", "allowOther", "passthrough"];
/// The same, of Home Manager only.
pub const USER_ONLY: &[&str] = &["service"];

/// `{ a: { b: value } }` for `a.b`.
pub fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, name| json!({ name: inner }))
}

/// Both of them, tables joined.
pub fn merged(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Object(mut a), Value::Object(b)) => {
            for (k, v) in b {
                let old = a.remove(&k);
                a.insert(k, old.map_or(v.clone(), |o| merged(o, v)));
            }
            a.into()
        }
        (_, b) => b,
    }
}
