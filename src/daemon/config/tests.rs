//! Loading: precedence, sources, errors; every key by every way.

use super::*;
use std::fs;

fn sources(env: &[(&str, &str)]) -> Sources {
    let mut all: Env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    all.entry("HOME".into()).or_insert("/home/u".into());
    Sources { platform: Platform::Linux, env: all, cwd: "/work/here".into(), host: "Yoga.lan".into(), config_file: None, flags: Vec::new() }
}

fn load(env: &[(&str, &str)], text: &str) -> Result<Config> {
    Config::from_text(&sources(env), Some("/etc/tcfs/config.toml".into()), Some(text))
}

/// A value for each key that differs from its default, in TOML and as text, and what is shown of it.
fn sample(key: &str) -> (String, String, String) {
    let same = |toml: &str, text: &str| (toml.to_owned(), text.to_owned(), toml.to_owned());
    match key {
        "store" => same("\"s3://tcfs/p\"", "s3://tcfs/p"),
        "mountpoint" | "state_dir" | "cache.dir" => same("\"/x/y\"", "/x/y"),
        "device_name" => same("\"other\"", "other"),
        "conflict_mode" => same("\"defer\"", "defer"),
        "sync_git_dirs" | "s3.allow_http" => same("true", "true"),
        "brake.enabled" | "gc.enabled" => same("false", "off"),
        "git_sync_mode" => same("\"raw\"", "raw"),
        "hydration.deny" | "hydration.cached_only" | "hydration.range_only" => same("[\"a*\", \"b\"]", "a*,b"),
        "exclude_patterns" => same("[\"*.o\", \"x\"]", "*.o,x"),
        "write_mode" => same("\"back\"", "back"),
        "poll_interval" => same("\"7s\"", "7s"),
        "nats_url" => same("\"nats://h:1\"", "nats://h:1"),
        "s3.endpoint" => same("\"https://h\"", "https://h"),
        "nats.user" | "nats.hub" | "s3.region" | "s3.profile" => same("\"zz\"", "zz"),
        "cache.max_bytes" | "cache.min_free" | "cache.hydrate_whole_below" | "log.max_bytes" => same("\"3MiB\"", "3MiB"),
        "nfs.port" | "log.keep" | "brake.files" | "brake.percent" => same("17", "17"),
        "log.level" => same("\"debug\"", "debug"),
        k if k.ends_with("_file") => same("\"/f\"", "/f"),
        k if keys::find(k).is_some_and(|k| k.secret) => ("\"hush\"".into(), "hush".into(), "(set, not shown)".into()),
        k => panic!("no sample for {k}"),
    }
}

fn shown(c: &Config, key: &str) -> Shown {
    c.show().into_iter().find(|s| s.key == key).unwrap()
}

#[test]
fn every_key_is_set_by_file_and_by_environment_and_shown_with_its_source() {
    for key in KEYS {
        let (toml, text, want) = sample(key.name);
        let line = match key.name.split_once('.') {
            Some((table, leaf)) => format!("\n[{table}]\n{leaf} = {toml}\n"),
            None => format!("\n\n{} = {toml}\n", key.name),
        };
        let got = shown(&load(&[], &line).unwrap(), key.name);
        assert_eq!((got.value.as_str(), got.source.as_str()), (want.as_str(), "/etc/tcfs/config.toml:3"), "{}", key.name);
        let env = key.env();
        let c = load(&[(&env, &text)], &line).unwrap();
        let got = shown(&c, key.name);
        assert_eq!((got.value, got.source), (want.clone(), format!("environment {env}")), "{}", key.name);
        assert!(c.warnings().iter().all(|w| !w.contains("means nothing")), "{:?}", c.warnings());
        if key.name != "write_mode" {
            assert_ne!(shown(&load(&[], "").unwrap(), key.name).value, want, "the sample of {} is its default", key.name);
        }
    }
}

#[test]
fn flags_win_over_environment_over_file_over_ambient_over_default() {
    let text = "[s3]\nregion = \"file\"\n";
    let region = |env: &[(&str, &str)], text: &str| load(env, text).unwrap().s3.region;
    assert_eq!(region(&[], ""), "us-east-1");
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "amb2"), ("AWS_REGION", "amb")], ""), "amb");
    assert_eq!(region(&[("AWS_REGION", "amb")], text), "file");
    assert_eq!(region(&[("AWS_REGION", "amb"), ("TCFS_S3_REGION", "env")], text), "env");
    assert_eq!(region(&[("TCFS_S3_REGION", "")], text), "file");
    let mut s = sources(&[("TCFS_STORE", "/env")]);
    s.flags.push(("store", "rel".into(), "--store"));
    let c = Config::from_text(&s, None, None).unwrap();
    assert_eq!((c.store.clone(), c.origin("store")), (StoreUrl::Dir("/work/here/rel".into()), Origin::Flag("--store".into())));
}

#[test]
fn an_unknown_key_names_line_and_neighbour() {
    let e = load(&[], "store = \"/x\"\n[cache]\nmax_byte = 1\n").unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
    assert_eq!(e.to_string(), "/etc/tcfs/config.toml, line 3: unknown key `cache.max_byte`");
    assert_eq!(e.hint_text(), Some("did you mean `cache.max_bytes`?"));
    assert!(load(&[], "[chache]\n").is_err());
    assert!(load(&[], "[cache]\n").is_ok());
    assert!(load(&[], "store = \"/x\"\n[store.x]\n").is_err());
    let w = load(&[("TCFS_STROE", "x")], "").unwrap().warnings();
    assert!(w[0].contains("TCFS_STROE") && w[0].contains("TCFS_STORE?"), "{w:?}");
}

#[test]
fn wrong_values_say_where_and_what_was_expected() {
    for (text, part) in [
        ("conflict_mode = \"ask\"", "line 1: conflict_mode: expected one of auto, interactive, defer, found \"ask\""),
        ("store = 5", "expected a store such as"),
        ("\nsync_git_dirs = \"maybe\"", "line 2: sync_git_dirs: expected true or false"),
        ("[cache]\nmax_bytes = \"lots\"", "such as 50GiB"),
        ("poll_interval = 5", "expected a duration such as \"5s\", found the number 5"),
        ("[nfs]\nport = 70000", "0 to 65535"),
        ("write_mode = \"through\"", "expected one of back"),
    ] {
        let e = load(&[], text).unwrap_err().to_string();
        assert!(e.contains(part), "{text}: {e}");
    }
    let e = load(&[("TCFS_POLL_INTERVAL", "x")], "").unwrap_err().to_string();
    assert!(e.starts_with("environment variable TCFS_POLL_INTERVAL: expected a duration"), "{e}");
    let e = load(&[], "[s3]\nsecret_access_key = [\"hush\"]").unwrap_err().to_string();
    assert!(!e.contains("hush"), "{e}");
}

#[test]
fn a_state_dir_takes_everything_with_it() {
    let c = load(&[("TCFS_STATE_DIR", "~/two")], "").unwrap();
    assert_eq!(c.dirs.state, Path::new("/home/u/two"));
    assert_eq!(c.store, StoreUrl::Dir("/home/u/two/store".into()));
    assert_eq!(c.cache.dir, Path::new("/home/u/two/cache"));
    let c = load(&[], "state_dir = \"s\"").unwrap();
    assert_eq!(c.dirs.state, Path::new("/etc/tcfs/s"));
    let mut s = sources(&[("TCFS_STATE_DIR", "/env")]);
    s.flags.push(("state_dir", "/flag".into(), "--state-dir"));
    assert_eq!(Config::from_text(&s, None, None).unwrap().dirs.state, Path::new("/flag"));
}

#[test]
fn the_file_is_the_named_one_or_the_one_in_the_state_dir() {
    let tmp = tempfile::tempdir().unwrap();
    let state = tmp.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("config.toml"), "device_name = \"in-state\"\n").unwrap();
    fs::write(tmp.path().join("named.toml"), "device_name = \"named\"\n").unwrap();
    let mut s = sources(&[("TCFS_STATE_DIR", state.to_str().unwrap())]);
    s.cwd = tmp.path().to_owned();
    assert_eq!(Config::load(&s).unwrap().device_name.0, "in-state");
    s.env.insert("TCFS_CONFIG".into(), "named.toml".into());
    let c = Config::load(&s).unwrap();
    assert_eq!((c.device_name.0.as_str(), c.file.as_deref()), ("named", Some(tmp.path().join("named.toml").as_path())));
    s.config_file = Some("missing.toml".into());
    let e = Config::load(&s).unwrap_err();
    assert!(e.kind() == Kind::Usage && e.to_string().contains("missing.toml"), "{e:?}");
    s.config_file = None;
    s.env = Env::from([("HOME".to_owned(), tmp.path().to_str().unwrap().to_owned())]);
    let c = Config::load(&s).unwrap();
    assert_eq!((c.file, c.file_path.clone()), (None, Some(tmp.path().join(".config/tcfs/config.toml"))));
}

#[test]
fn credentials_come_from_the_strongest_place() {
    let tmp = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let p = tmp.path().join(name);
        fs::write(&p, text).unwrap();
        p.to_str().unwrap().to_owned()
    };
    let ini = file("ini", "[default]\naws_access_key_id=I\naws_secret_access_key=J\n[p]\naws_access_key_id=P\n");
    let secret = file("secret", "from-file\n");
    let aws = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "B"), ("AWS_SESSION_TOKEN", "T")];
    let get = |env: &[(&str, &str)], text: &str| {
        load(env, text).unwrap().s3_credentials().map(|c| (c.access_key_id, c.secret_access_key, c.session_token))
    };
    let s = |x: &str| x.to_owned();
    assert_eq!(get(&aws, "").unwrap(), (s("A"), s("B"), Some(s("T"))));
    let with_file = format!("[s3]\ncredentials_file = \"{ini}\"\n");
    assert_eq!(get(&aws, &with_file).unwrap(), (s("I"), s("J"), None));
    let direct = format!("[s3]\naccess_key_id = \"D\"\nsecret_access_key_file = \"{secret}\"\ncredentials_file = \"{ini}\"\n");
    assert_eq!(get(&aws, &direct).unwrap(), (s("D"), s("from-file"), None));
    assert_eq!(get(&[("TCFS_S3_SECRET_ACCESS_KEY", "env")], &direct).unwrap().1, "env");
    assert_eq!(
        get(&[("TCFS_S3_SECRET_ACCESS_KEY_FILE", &secret)], "[s3]\naccess_key_id='D'\nsecret_access_key='x'").unwrap().1,
        "from-file"
    );
    let both = get(&[("TCFS_S3_SECRET_ACCESS_KEY", "a"), ("TCFS_S3_SECRET_ACCESS_KEY_FILE", &secret)], "").unwrap_err();
    assert!(both.to_string().contains("both set"), "{both}");
    let half = get(&[("TCFS_S3_ACCESS_KEY_ID", "a")], "").unwrap_err();
    assert!(half.to_string().contains("secret_access_key is not"), "{half}");
    let none = get(&[], "").unwrap_err();
    assert!(none.hint_text().unwrap().contains("TCFS_S3_ACCESS_KEY_ID"), "{none:?}");
    let e = get(&[("AWS_PROFILE", "p")], &with_file).unwrap_err();
    assert!(e.to_string().contains("[p]") && e.to_string().contains("aws_secret_access_key"), "{e}");
    let e = get(&[("AWS_PROFILE", "q")], &with_file).unwrap_err();
    assert!(e.to_string().contains("no profile [q] (from AWS_PROFILE)"), "{e}");
}

#[test]
fn defaults_that_depend_on_others() {
    let c = load(&[], "").unwrap();
    assert_eq!((c.device_name.0.as_str(), c.poll_interval()), ("yoga", Duration::from_secs(5)));
    assert_eq!(load(&[], "store = \"s3://tcfs/p\"").unwrap().poll_interval(), Duration::from_secs(30));
    assert_eq!((c.cache.cap(10 << 30), c.cache.cap(1 << 50)), (2 << 30, 50 << 30));
    assert_eq!(load(&[], "cache.max_bytes = \"1GiB\"").unwrap().cache.cap(1), 1 << 30);
    let mut s = sources(&[("TCFS_STATE_DIR", "/s")]);
    s.env.remove("HOME");
    let c = Config::from_text(&s, None, None).unwrap();
    assert!(c.mountpoint().unwrap_err().hint_text().unwrap().contains("tcfs mount"));
}
