//! Options one by one, what is refused, units and agents, the hosts of the lab.

use super::common::cli::run;
use super::common::nix::evaluate;
use super::common::program;
use super::common::tools;
use super::shown;
use super::values::{DAEMON_ONLY, Key, OPTIONS, OTHERS, USER_ONLY, keys, merged, nested};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const HOME: &str = "/home/ann";

/// A module that makes a configuration file.
struct Module {
    name: &'static str,
    /// What `eval.nix` calls it.
    call: &'static str,
    /// Where the file is in the result.
    file: [&'static str; 2],
    own: &'static [&'static str],
    /// The daemon of the system is given its secrets by systemd.
    system: bool,
}

const MODULES: [Module; 3] = [
    Module { name: "daemon", call: "t.daemon", file: ["etc", "tcfs/config.toml"], own: DAEMON_ONLY, system: true },
    Module { name: "user", call: "t.user \"x86_64-linux\"", file: ["files", ".config/tcfs/config.toml"], own: USER_ONLY, system: false },
    Module {
        name: "user",
        call: "t.user \"aarch64-darwin\"",
        file: ["files", "Library/Application Support/tcfs/config.toml"],
        own: USER_ONLY,
        system: false,
    },
];

impl Module {
    fn results(&self, configs: &[Value]) -> Vec<Value> {
        let all = evaluate(&format!("{} json", self.call), &json!(configs));
        all.as_array().unwrap().clone()
    }

    fn file<'a>(&self, result: &'a Value) -> &'a str {
        result[self.file[0]][self.file[1]].as_str().unwrap_or_else(|| panic!("{}: no file in {result}", self.call))
    }

    /// The path under which the daemon finds a secret that is given as this file.
    fn place(&self, key: &str, given: &str) -> String {
        let name = key.strip_suffix("_file").unwrap_or(key).replace(['.', '_'], "-");
        match self.system && is_secret(key) {
            true => format!("/run/credentials/tcfsd.service/{name}"),
            false => given.replacen('~', HOME, 1),
        }
    }
}

fn is_secret(key: &str) -> bool {
    key.ends_with("_file") && key != "nats.ca_file"
}

fn names(v: &Value) -> BTreeSet<&str> {
    v.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect()
}

fn on(config: Value) -> Value {
    merged(json!({"enable": true}), config)
}

#[test]
fn the_modules_know_every_key_of_the_program_but_secrets() {
    let done = super::show(Path::new("/dev/null"), HOME).ok().json();
    let secrets = ["nats.token", "nats.password", "s3.access_key_id", "s3.secret_access_key", "s3.session_token"];
    let program: BTreeSet<&str> = done.iter().map(|v| v["key"].as_str().unwrap()).filter(|k| !secrets.contains(k)).collect();
    let options = evaluate("t.options", &json!(null));
    assert_eq!(names(&options["settings"]), program);
    assert_eq!(keys().iter().map(|k| k.name).collect::<BTreeSet<_>>(), program, "values for each key");
    for m in &MODULES {
        let known = OPTIONS.iter().map(|(o, _)| *o).chain(OTHERS.iter().copied()).chain(m.own.iter().copied()).collect();
        assert_eq!(names(&options[m.name]), known, "{}: values for each option", m.call);
    }
}

/// Each value that a key can have, by the option that stands for it and by `settings`, alone: what the program reads is that.
#[test]
fn each_value_of_each_option_reaches_the_program() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("config.toml");
    let all = keys();
    let of = |name: &str| all.iter().find(|k| k.name == name).unwrap();
    let mut seen = 0;
    for m in &MODULES {
        let by_options = OPTIONS.iter().map(|(option, key)| ((*option).to_owned(), of(key)));
        let by_settings = all.iter().map(|k| (format!("settings.{}", k.name), k));
        let cases: Vec<(String, &Key, &Value, Option<&str>)> = by_options
            .chain(by_settings)
            .flat_map(|(path, key)| key.good.iter().map(move |(v, s)| (path.clone(), key, v, *s)))
            // The system's mountpoint is of no home.
            .filter(|(path, _, v, _)| !(m.system && path == "mountpoint" && v.as_str().is_some_and(|v| v.starts_with('~'))))
            .collect();
        let results = m.results(&cases.iter().map(|(path, _, v, _)| on(nested(path, (*v).clone()))).collect::<Vec<_>>());
        for ((path, key, value, shown_as), result) in cases.iter().zip(&results) {
            let what = format!("{}: {path} = {value}", m.call);
            assert_eq!(result["error"], Value::Null, "{what} is refused");
            fs::write(&file, m.file(result)).unwrap();
            let got = shown(&file, HOME).into_iter().find(|(k, _, _)| k == key.name).unwrap();
            let want = match value.as_str() {
                // A secret of the system comes from systemd, unless `settings` says otherwise.
                Some(v) if is_secret(key.name) && !path.starts_with("settings") => json!(m.place(key.name, v)).to_string(),
                _ => shown_as.map_or_else(|| as_toml(value), str::to_owned),
            };
            assert_eq!((got.1, got.2), (want, true), "{what}\n{}", fs::read_to_string(&file).unwrap());
            seen += 1;
        }
    }
    assert!(seen > 3 * 100, "{seen}");
}

/// As the program shows it.
fn as_toml(v: &Value) -> String {
    match v {
        Value::Array(a) => format!("[{}]", a.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        Value::String(s) => toml::Value::String(s.clone()).to_string(),
        v => v.to_string(),
    }
}

#[test]
fn wrong_values_are_refused() {
    for m in &MODULES {
        let all = keys();
        let of = |name: &str| all.iter().find(|k| k.name == name).unwrap();
        let by_options = OPTIONS.iter().map(|(o, k)| ((*o).to_owned(), of(k)));
        let by_settings = all.iter().map(|k| (format!("settings.{}", k.name), k));
        let mut cases: Vec<(String, Value)> =
            by_options.chain(by_settings).flat_map(|(path, key)| key.bad.iter().map(move |v| (path.clone(), v.clone()))).collect();
        for (path, v) in [("enable", json!(1)), ("package", json!(1)), ("colour", json!("red")), ("nats.tokenFiel", json!("/x"))] {
            cases.push((path.to_owned(), v));
        }
        if m.system {
            for (path, v) in [
                ("user", json!("")),
                ("group", json!(1)),
                ("allowOther", json!("x")),
                ("passthrough", json!(1)),
                ("mountpoint", json!("~/x")),
            ] {
                cases.push((path.to_owned(), v));
            }
        } else {
            cases.push(("service".to_owned(), json!("x")));
        }
        let results = m.results(&cases.iter().map(|(p, v)| merged(json!({"enable": true}), nested(p, v.clone()))).collect::<Vec<_>>());
        for ((path, v), r) in cases.iter().zip(&results) {
            assert_eq!(r["error"], json!(true), "{}: {path} = {v} is taken", m.call);
        }
    }
}

/// What no type can say is refused with a sentence.
#[test]
fn contradictions_and_secrets_in_the_nix_store_are_refused_with_a_sentence() {
    let bus = json!({"natsUrl": "nats://h:1"});
    let cases = [
        (json!({"settings": {"s3": {"secret_access_key": "hush"}}}), "s3.secret_access_key would lie in the Nix store"),
        (merged(bus.clone(), json!({"settings": {"nats": {"token": "hush"}}})), "nats.token would lie in the Nix store"),
        (json!({"settings": {"s3": {"credentials_file": "/nix/store/x"}}}), "s3.credentials_file names a file in the Nix store"),
        (json!({"natsUrl": "nats://a:b@h:1"}), "has a user or a password in it"),
        (json!({"natsUrl": "nats://h:1,nats://a@h:1"}), "has a user or a password in it"),
        (json!({"nats": {"tokenFile": "/run/t"}}), "there would be no event bus"),
        (merged(bus.clone(), json!({"nats": {"user": "u"}})), "nats.user and nats.passwordFile go together"),
        (json!({"s3": {"accessKeyIdFile": "/run/i"}}), "s3.accessKeyIdFile and s3.secretAccessKeyFile go together"),
        (json!({"s3": {"endpoint": "http://h"}}), "is without TLS"),
    ];
    for m in &MODULES {
        let results = m.results(&cases.iter().map(|(c, _)| on(c.clone())).collect::<Vec<_>>());
        for ((config, sentence), r) in cases.iter().zip(&results) {
            let failed: Vec<&str> = r["failed"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
            assert!(failed.len() == 1 && failed[0].contains(sentence), "{}: {config}: {failed:?}", m.call);
        }
        let fine = [
            merged(bus.clone(), json!({"nats": {"user": "u", "passwordFile": "/run/p", "hub": "hub"}})),
            json!({"store": "s3://tcfs/default", "s3": {"accessKeyIdFile": "/run/i", "secretAccessKeyFile": "/run/s", "endpoint": "https://h"}}),
            json!({"s3": {"endpoint": "http://h", "allowHttp": true}}),
        ];
        let odd = [json!({"settings": {"colour": "red", "s3": {"colour": 1}}}), json!({"syncGitDirs": true, "gitSyncMode": "raw"})];
        let results = m.results(&fine.iter().chain(&odd).map(|c| on(c.clone())).collect::<Vec<_>>());
        for r in &results {
            assert_eq!(r["failed"], json!([]), "{r}");
        }
        let warnings = |r: &Value| r["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert!(results[..fine.len()].iter().all(|r| warnings(r).is_empty()));
        assert!(warnings(&results[fine.len()])[0].contains("does not know colour s3.colour"), "{:?}", warnings(&results[fine.len()]));
        assert!(warnings(&results[fine.len() + 1])[0].contains("gitSyncMode is raw"));
    }
    let system = &MODULES[0].results(&[on(json!({"store": "s3://a/b"}))])[0];
    assert!(system["failed"][0].as_str().unwrap().contains("there are no credentials"), "{system}");
}

#[test]
fn what_is_off_sets_nothing_and_what_settings_say_goes_before() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("config.toml");
    for m in &MODULES {
        let both = json!({"conflictMode": "defer", "settings": {"conflict_mode": "interactive", "log": {"keep": 2}}});
        let results = m.results(&[json!({"conflictMode": "defer"}), on(both)]);
        assert!(results[0][m.file[0]].as_object().unwrap().is_empty() && results[0]["units"].as_object().unwrap().is_empty());
        fs::write(&file, m.file(&results[1])).unwrap();
        let got = shown(&file, HOME);
        let value = |key: &str| got.iter().find(|(k, _, _)| k == key).unwrap().1.clone();
        assert_eq!((value("conflict_mode"), value("log.keep")), ("\"interactive\"".into(), "2".into()));
    }
}

/// `systemd-analyze` only warns of what it does not know: anything it says of this unit is a failure.
fn verify(dir: &Path, name: &str, text: &str, more: &[&str]) {
    // Programs of packages are not on this machine.
    let text = text.replace("/opt/tcfs/bin/tcfs", program().to_str().unwrap()).replace("/opt/nats/bin/nats-server", "/bin/true");
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    let mut command = Command::new(tools::find("systemd-analyze"));
    let done = run(command.arg("verify").args(["--man=no"]).args(more).arg(&file), Duration::from_secs(60));
    let said: Vec<&str> = done.stderr.lines().chain(done.stdout.lines()).filter(|l| l.contains(name)).collect();
    assert!(said.is_empty(), "{name}: {said:?}\n{}", fs::read_to_string(&file).unwrap());
}

fn settings(unit: &str, key: &str) -> Vec<String> {
    unit.lines().filter_map(|l| l.strip_prefix(&format!("{key}="))).map(str::to_owned).collect()
}

#[test]
fn the_units_are_valid_and_can_mount() {
    let tmp = tempfile::tempdir().unwrap();
    let secret = json!({"natsUrl": "nats://h:1", "nats": {"user": "u", "passwordFile": "/run/secrets/p"}});
    let configs = [
        on(json!({})),
        on(json!({"passthrough": true, "user": "ann", "group": "users", "mountpoint": "/srv/a drive 100%"})),
        on(json!({"user": "root", "group": "root", "allowOther": false})),
        on(merged(secret, json!({"package": {"outPath": "/opt/other", "type": "derivation", "name": "tcfs"}}))),
    ];
    let results = MODULES[0].results(&configs);
    let unit = |i: usize| results[i]["units"]["tcfsd"].as_str().unwrap();
    for i in 0..3 {
        verify(tmp.path(), "tcfsd.service", unit(i), &[]);
        // Each of these makes a mount namespace: the drive would be mounted for the daemon alone.
        for line in unit(i).lines() {
            let alone = [
                "Private",
                "Protect",
                "ReadOnlyPaths",
                "ReadWritePaths",
                "InaccessiblePaths",
                "Bind",
                "Temporary",
                "RootDirectory",
                "MountFlags",
            ];
            assert!(!alone.iter().any(|a| line.starts_with(a)) && !line.starts_with("DynamicUser"), "{line}");
        }
        assert_eq!(settings(unit(i), "DeviceAllow"), ["/dev/fuse rw"]);
    }
    // By fusermount3: nothing may keep that from being root.
    for filter in ["NoNewPrivileges", "SystemCall", "Restrict", "LockPersonality", "MemoryDeny", "AmbientCapabilities"] {
        assert!(!unit(0).lines().any(|l| l.starts_with(filter)), "{filter}");
    }
    assert_eq!(results[0]["userAllowOther"], json!(true));
    assert!(results[0]["users"]["tcfs"].is_object() && results[1]["users"].as_object().unwrap().is_empty());
    // By itself: with that capability alone, and confined.
    assert_eq!(settings(unit(1), "AmbientCapabilities"), ["CAP_SYS_ADMIN"]);
    assert_eq!(settings(unit(1), "CapabilityBoundingSet"), ["CAP_SYS_ADMIN"]);
    assert_eq!((settings(unit(1), "NoNewPrivileges"), settings(unit(1), "User")), (vec!["true".into()], vec!["ann".into()]));
    assert!(!settings(unit(1), "SystemCallFilter").is_empty() && results[1]["userAllowOther"] == json!(false));
    assert!(settings(unit(2), "AmbientCapabilities").is_empty() && !unit(2).contains("--allow-other"));
    assert_eq!(settings(unit(3), "LoadCredential"), ["nats-password:/run/secrets/p"]);
    assert!(settings(unit(3), "ExecStart")[0].starts_with("/opt/other/bin/tcfs "));

    let home = MODULES[1].results(&[on(json!({})), on(json!({"service": false}))]);
    let unit = home[0]["units"]["tcfs"].as_str().unwrap();
    verify(tmp.path(), "tcfs.service", unit, &["--user"]);
    assert!(home[1]["units"].as_object().unwrap().is_empty());
    // What `tcfs service install` writes, says the same.
    let done = run(
        Command::new(program()).args(["service", "print", "--packaged", "/opt/tcfs/bin/tcfs"]).env_clear().env("HOME", HOME),
        Duration::from_secs(60),
    )
    .ok();
    let lines = |text: &str| -> BTreeSet<String> {
        let says = |l: &&str| l.contains('=') && !l.starts_with(['#', 'X']) && !l.starts_with("Environment");
        text.lines().filter(says).map(|l| l.replace('"', "").replace("=0077", "=77").replace("true", "yes")).collect()
    };
    assert_eq!(lines(unit), lines(&done.stdout));
}

#[test]
fn the_agent_is_a_property_list_that_says_what_ours_says() {
    let results = MODULES[2].results(&[on(json!({})), on(json!({"service": false}))]);
    assert!(results[0]["units"].as_object().unwrap().is_empty() && results[1]["agents"].as_object().unwrap().is_empty());
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("agent.plist");
    // As Home Manager does: the attributes as a property list. Python reads both.
    let script = "import json,plistlib,sys; d=plistlib.loads(plistlib.dumps(json.loads(sys.argv[1]))); print(json.dumps([d, plistlib.load(open(sys.argv[2],'rb'))]))";
    let mut print = Command::new(program());
    print.args(["--state-dir", "/s", "service", "print", "--platform", "macos", "/home/ann/tcfs"]).env_clear().env("HOME", HOME);
    fs::write(&file, run(&mut print, Duration::from_secs(60)).ok().stdout).unwrap();
    let mut read = Command::new(tools::find("python3"));
    let both =
        run(read.args(["-c", script, &results[0]["agents"]["tcfs"].to_string(), file.to_str().unwrap()]), Duration::from_secs(60)).ok();
    let both: Value = serde_json::from_str(&both.stdout).unwrap();
    for key in ["RunAtLoad", "KeepAlive", "ThrottleInterval", "ExitTimeOut", "ProcessType", "Umask", "SoftResourceLimits"] {
        assert!(both[0][key] == both[1][key] && !both[0][key].is_null(), "{key}: {both}");
    }
    assert_eq!(both[0]["ProgramArguments"], json!(["/opt/tcfs/bin/tcfs", "mount", "--foreground"]));
}

#[test]
fn the_downstream_module_maps_onto_the_drive() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("config.toml");
    let host = |enable: bool, fleet: bool| json!({"tinyland": {"host": {"tummycrypt": {"enable": enable, "fleet": fleet}}}});
    let fleet = |more: Value| merged(host(true, true), json!({"tinyland": {"tummycrypt": {"fleet": more}}}));
    let configs = [
        host(false, false),
        host(false, true),
        host(true, false),
        fleet(json!({})),
        fleet(
            json!({"conflictMode": "interactive", "syncGitDirs": true, "gitSyncMode": "raw", "natsUrl": "nats://x:1", "excludePatterns": ["*.o"]}),
        ),
        // What is said of the drive itself goes before.
        merged(fleet(json!({"conflictMode": "defer"})), json!({"programs": {"tcfs": {"conflictMode": "interactive"}}})),
        json!({"tinyland": {"tummycrypt": {"fleet": {"enable": true}}}}),
    ];
    let results = evaluate("t.tummycrypt \"x86_64-linux\" json", &json!(configs));
    let place = ".config/tcfs/config.toml";
    for i in [0, 1] {
        assert!(results[i]["files"].as_object().unwrap().is_empty(), "{i}");
    }
    let says = |i: usize| -> Vec<String> {
        fs::write(&file, results[i]["files"][place].as_str().unwrap()).unwrap();
        let got = shown(&file, HOME);
        let of = |key: &str| got.iter().find(|(k, _, _)| k == key).unwrap().1.clone();
        ["conflict_mode", "sync_git_dirs", "git_sync_mode", "nats_url", "exclude_patterns"].map(of).to_vec()
    };
    let defaults =
        ["\"auto\"", "false", "\"bundle\"", "\"nats://nats.tcfs.svc.cluster.local:4222\"", "[\"*.swp\", \"*.swo\", \".direnv\"]"];
    assert_eq!(says(2)[3], "(no bus)");
    assert_eq!(says(3), defaults);
    assert_eq!(says(4), ["\"interactive\"", "true", "\"raw\"", "\"nats://x:1\"", "[\"*.o\"]"]);
    assert_eq!(says(5)[0], "\"interactive\"");
    assert_eq!(says(6), defaults);
    let bad = [fleet(json!({"conflictMode": "x"})), fleet(json!({"natsUrl": ""})), fleet(json!({"colour": 1})), host(true, true)];
    let results = evaluate("t.tummycrypt \"x86_64-linux\" json", &json!(bad));
    let errors: Vec<bool> = results.as_array().unwrap().iter().map(|r| r["error"] == json!(true)).collect();
    assert_eq!(errors, [true, true, true, false]);
    let options = evaluate("t.options.tummycrypt", &json!(null));
    let fleet =
        ["conflictMode", "enable", "excludePatterns", "gitSyncMode", "natsUrl", "syncGitDirs"].map(|o| format!("tummycrypt.fleet.{o}"));
    let known = ["host.tummycrypt.enable", "host.tummycrypt.fleet"].into_iter().chain(fleet.iter().map(String::as_str)).collect();
    assert_eq!(names(&options), known);
}

#[test]
fn the_hosts_of_the_lab_are_what_they_should_be() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("config.toml");
    let hosts = evaluate("t.hosts", &json!(null));
    for (name, system, mode, git) in [
        ("xoxd-bates", "aarch64-darwin", "\"auto\"", "false"),
        ("petting-zoo-mini", "aarch64-darwin", "\"auto\"", "false"),
        ("yoga", "x86_64-linux", "\"interactive\"", "true"),
    ] {
        let host = &hosts[name];
        assert_eq!((host["system"].as_str(), &host["failed"], &host["warnings"]), (Some(system), &json!([]), &json!([])));
        fs::write(&file, host["files"].as_object().unwrap().values().next().unwrap().as_str().unwrap()).unwrap();
        let got = shown(&file, HOME);
        let of = |key: &str| got.iter().find(|(k, _, _)| k == key).unwrap().1.clone();
        assert_eq!((of("device_name"), of("conflict_mode"), of("sync_git_dirs")), (json!(name).to_string(), mode.into(), git.into()));
        assert_eq!(of("git_sync_mode"), "\"bundle\"");
        let darwin = system.ends_with("darwin");
        assert_eq!(host["agents"].as_object().unwrap().len(), usize::from(darwin));
        assert_eq!(host["units"].as_object().unwrap().len(), usize::from(!darwin));
    }
}

/// A NATS server says itself whether it would start with this.
#[test]
fn the_servers_of_the_bus_take_their_configuration() {
    let tmp = tempfile::tempdir().unwrap();
    let base = json!({"enable": true, "secretsFile": "/run/secrets/nats"});
    let tls = json!({"certFile": "/run/c", "keyFile": "/run/k"});
    let cases = [
        merged(base.clone(), json!({"listen": "127.0.0.1:4333", "openFirewall": true, "maxStore": "1GB"})),
        merged(base.clone(), json!({"role": "hub", "leafListen": "127.0.0.1:7555", "openFirewall": true})),
        merged(base.clone(), json!({"role": "hub", "domain": "middle", "tls": tls})),
    ];
    let results = evaluate("t.nats json", &json!(cases));
    for (i, r) in results.as_array().unwrap().iter().enumerate() {
        assert_eq!(r["failed"], json!([]));
        verify(tmp.path(), "tcfs-nats.service", r["units"]["tcfs-nats"].as_str().unwrap(), &[]);
        // Beside it, where the unit puts them.
        let root = tmp.path().join(i.to_string());
        let credentials = root.join("run/credentials/tcfs-nats.service");
        fs::create_dir_all(root.join("etc/tcfs")).unwrap();
        fs::create_dir_all(&credentials).unwrap();
        let other = if i == 0 { "tcfs_hub_url = \"nats://leaf:l@h:7422\"" } else { "tcfs_leaf_password = \"l\"" };
        fs::write(credentials.join("secrets"), format!("tcfs_password = \"7 bad\\\"ly # chosen\"\n{other}\n")).unwrap();
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=h -days 2 -keyout tls-key -out tls-cert 2>/dev/null";
        run(Command::new("sh").args(["-c", script]).current_dir(&credentials), Duration::from_secs(60)).ok();
        let conf = root.join("etc/tcfs/nats.conf");
        let text = r["etc"]["tcfs/nats.conf"].as_str().unwrap();
        fs::write(&conf, text.replace("\"/run/credentials", &format!("\"{}/run/credentials", root.display()))).unwrap();
        run(Command::new(tools::find("nats-server")).args(["-t", "-c", conf.to_str().unwrap()]), Duration::from_secs(60)).ok();
    }
    assert_eq!((&results[0]["ports"], &results[1]["ports"], &results[2]["ports"]), (&json!([4333]), &json!([4222, 7555]), &json!([])));
    assert!(results[0]["etc"]["tcfs/nats.conf"].as_str().unwrap().contains("domain: \"yoga\""));

    let lab = evaluate("t.labLeaf", &json!(null));
    assert_eq!((&lab["failed"], &lab["ports"]), (&json!([]), &json!([4222])));
    assert!(lab["etc"]["tcfs/nats.conf"].as_str().unwrap().contains("url: $tcfs_hub_url"));

    let options = evaluate("t.options.nats", &json!(null));
    let known = [
        "domain",
        "enable",
        "leafListen",
        "listen",
        "maxStore",
        "openFirewall",
        "package",
        "role",
        "secretsFile",
        "tls.certFile",
        "tls.keyFile",
    ];
    assert_eq!(names(&options), known.into_iter().collect());
    for (bad, sentence) in [
        (json!({"secretsFile": "/nix/store/x"}), "lies in the Nix store"),
        (json!({"tls": {"certFile": "/x"}}), "go together"),
        (json!({"domain": "hub"}), "a JetStream domain of its own"),
    ] {
        let r = evaluate("builtins.head (t.nats [ json ])", &merged(base.clone(), bad));
        assert!(r["failed"][0].as_str().unwrap().contains(sentence), "{r}");
    }
    for (option, v) in [
        ("role", json!("x")),
        ("domain", json!("a b")),
        ("listen", json!("4222")),
        ("maxStore", json!("much")),
        ("secretsFile", json!("x")),
    ] {
        let r = evaluate("builtins.head (t.nats [ json ])", &merged(base.clone(), json!({option: v})));
        assert_eq!(r["error"], json!(true), "{option} = {v}");
    }
}
