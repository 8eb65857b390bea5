//! The event bus between real parts: drives mounted on one SeaweedFS, real nats-servers, and a poll interval so long that
//! whatever arrives came over the bus.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;
#[path = "common/nats.rs"]
mod nats;
#[path = "common/server.rs"]
mod server;
#[path = "common/weed.rs"]
mod weed;

use async_nats::jetstream;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use common::{Mounted, World, until};
use nats::NatsServer;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use weed::Weed;

/// For a busy machine; what takes so long has failed.
const SOON: Duration = Duration::from_secs(120);

/// A machine on the S3 store that looks into it once a day.
fn setup(world: &Arc<World>, name: &str, weed: &Weed, url: &str) -> common::mounted::Setup {
    world
        .device(name)
        .s3("s3://tcfs/default", &weed.endpoint(), (weed::ACCESS_KEY, weed::SECRET_KEY))
        .env("TCFS_POLL_INTERVAL", "1d")
        .env("TCFS_NATS_URL", url)
}

#[track_caller]
fn is_connected(m: &Mounted) {
    until("the bus is connected", SOON, || (m.status()["nats"]["state"] == "connected").then_some(()));
}

/// Why it is not connected.
#[track_caller]
fn is_not(m: &Mounted) -> String {
    let why = until("it says why", SOON, || m.status()["nats"]["last_error"].as_str().map(str::to_owned));
    assert_eq!(m.status()["nats"]["state"], "connecting");
    why
}

/// `name` shows `text` on that machine.
#[track_caller]
fn shows(m: &Mounted, name: &str, text: &str) {
    until("the other machine shows it", SOON, || (fs::read_to_string(m.path(name)).ok().as_deref() == Some(text)).then_some(()));
}

/// `tcfs device list` says so of that device.
fn online(m: &Mounted, name: &str) -> Option<bool> {
    let all = m.cli(&["--json", "device", "list"]).json();
    all.iter().find(|d| d["name"] == name).and_then(|d| d["online"].as_bool())
}

/// `tcfs doctor` on the bus: verdict and text.
fn doctor(m: &Mounted) -> (String, String) {
    let all = m.cli(&["--json", "doctor"]).json();
    let bus = all.iter().find(|c| c["name"] == "bus").unwrap_or_else(|| panic!("{all:?}"));
    (bus["verdict"].as_str().unwrap().to_owned(), bus.to_string())
}

/// Nothing that anybody can read on that machine holds the secret.
fn keeps_secret(m: &Mounted, secret: &str) {
    for args in
        [&["--json", "status"][..], &["status"], &["config", "show"], &["--json", "config", "show"], &["config", "check"], &["doctor"]]
    {
        let text = m.cli(args).text();
        assert!(!text.contains(secret), "tcfs {args:?} tells the secret: {text}");
    }
    assert!(!m.log().contains(secret), "the log tells the secret");
}

/// What is saved, moved and removed on one machine is so on the other, long before it would look by itself; the server
/// comes late, dies, and comes back with nothing.
#[test]
fn changes_arrive_over_the_bus_and_survive_its_loss() {
    drive_only!();
    let weed = Weed::start();
    let mut server = NatsServer::start();
    server.kill();
    let w = World::new();
    let a = setup(&w, "ann", &weed, &server.url()).env("TCFS_LOG_LEVEL", "debug").mount();
    fs::write(a.path("early"), "before there was a bus").unwrap();
    a.wait();
    is_not(&a);
    assert_eq!(doctor(&a).0, "warn");
    let b = setup(&w, "bob", &weed, &server.url()).mount();
    shows(&b, "early", "before there was a bus");
    server.restart();
    is_connected(&a);
    is_connected(&b);
    fs::write(a.path("f"), "one").unwrap();
    shows(&b, "f", "one");
    fs::rename(a.path("f"), a.path("g")).unwrap();
    until("the move arrives", SOON, || (!b.path("f").exists() && b.path("g").exists()).then_some(()));
    fs::write(b.path("g"), "two").unwrap();
    shows(&a, "g", "two");
    fs::remove_file(a.path("g")).unwrap();
    until("the removal arrives", SOON, || (!b.path("g").exists()).then_some(()));
    for i in 0..300 {
        fs::write(a.path(format!("many{i}")), format!("{i}")).unwrap();
    }
    shows(&b, "many299", "299");
    assert!(b.status()["nats"]["heard"].as_u64().unwrap() > 0, "{}", b.status()["nats"]);
    until("both know that the other is there", SOON, || (online(&a, "bob") == Some(true) && online(&b, "ann") == Some(true)).then_some(()));
    assert_eq!(online(&a, "ann"), Some(true));
    let (verdict, text) = doctor(&a);
    assert!(verdict == "ok" && text.contains("other devices there: 1"), "{text}");

    // What is no event harms nobody.
    noise(&server.url());
    fs::write(a.path("after noise"), "x").unwrap();
    shows(&b, "after noise", "x");

    // Without the bus nothing is lost and nothing waits; once it is back, what was missed is caught up with.
    server.kill();
    server.wipe();
    fs::write(a.path("while-away"), "written").unwrap();
    a.wait();
    is_not(&a);
    assert_eq!((doctor(&a).0.as_str(), online(&a, "bob")), ("warn", None));
    server.restart();
    shows(&b, "while-away", "written");
    is_connected(&a);
    is_connected(&b);
    fs::write(a.path("after"), "again").unwrap();
    shows(&b, "after", "again");
    // Who goes says so.
    b.unmount();
    until("bob is gone", SOON, || (online(&a, "bob") == Some(false)).then_some(()));
    // A device that was away for all of it has what the logs say.
    b.mount();
    shows(&b, "after", "again");
}

#[tokio::main(flavor = "current_thread")]
async fn noise(url: &str) {
    let c = async_nats::connect(url).await.unwrap();
    for (subject, body) in [
        ("STATE.x", &b"\xff\xfe"[..]),
        ("STATE.ann-1.file_synced", b"{}"),
        (
            "STATE.ann-1.file_synced",
            br#"{"type":"device_online","device_id":"bob-1","last_seq":18446744073709551615,"timestamp":-9223372036854775808}"#,
        ),
        (
            "STATE.ann-1.device_online",
            br#"{"type":"device_online","device_id":"ann-1","last_seq":18446744073709551615,"timestamp":9223372036854775807}"#,
        ),
        ("STATE.a.b.c.d.e", b""),
    ] {
        c.publish(subject, body.to_vec().into()).await.unwrap();
    }
    c.flush().await.unwrap();
}

/// A stream of that name that was made otherwise is brought up to its configuration and keeps what else it has; one that
/// is deleted, and a consumer that is, are made again.
#[test]
fn the_stream_is_mended_and_made_again() {
    drive_only!();
    let server = NatsServer::start();
    let ask = Ask::new(&server.url());
    ask.stream(jetstream::stream::Config {
        name: "STATE_UPDATES".into(),
        subjects: vec!["STATE.>".into(), "EXTRA.>".into()],
        max_age: Duration::from_secs(3600),
        description: Some("made by hand".into()),
        ..Default::default()
    });
    let w = World::new();
    let a = w.device("ann").env("TCFS_NATS_URL", server.url()).mount();
    is_connected(&a);
    let c = ask.config().unwrap();
    assert_eq!((c.subjects, c.max_age), (vec!["STATE.>".to_owned()], Duration::from_secs(7 * 24 * 3600)));
    assert_eq!((c.duplicate_window, c.description.as_deref()), (Duration::from_secs(120), Some("made by hand")));
    let consumer = format!("state-{}", a.device_id());
    assert!(ask.consumers().contains(&consumer), "{:?}", ask.consumers());
    ask.delete_consumer(&consumer);
    until("the consumer is made again", SOON, || ask.consumers().contains(&consumer).then_some(()));
    ask.delete_stream();
    // Somebody says something, or it is noticed that the server is silent.
    fs::write(a.path("f"), "x").unwrap();
    until("the stream and the consumer are made again", SOON, || ask.consumers().contains(&consumer).then_some(()));
    let c = ask.config().unwrap();
    assert_eq!((c.max_age, c.storage), (Duration::from_secs(7 * 24 * 3600), jetstream::stream::StorageType::File));
    is_connected(&a);
}

/// An administrator's view of a server.
struct Ask {
    rt: tokio::runtime::Runtime,
    js: jetstream::Context,
}

impl Ask {
    fn new(url: &str) -> Ask {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let js = rt.block_on(async {
            jetstream::new(async_nats::ConnectOptions::with_user_and_password("tcfs".into(), "p".into()).connect(url).await.unwrap())
        });
        Ask { rt, js }
    }
    fn stream(&self, c: jetstream::stream::Config) {
        self.rt.block_on(self.js.create_stream(c)).unwrap();
    }
    fn config(&self) -> Option<jetstream::stream::Config> {
        Some(self.rt.block_on(self.js.get_stream("STATE_UPDATES")).ok()?.cached_info().config.clone())
    }
    fn consumers(&self) -> Vec<String> {
        use futures_util::StreamExt;
        self.rt.block_on(async {
            let Ok(s) = self.js.get_stream("STATE_UPDATES").await else { return vec![] };
            s.consumer_names().filter_map(|n| async { n.ok() }).collect().await
        })
    }
    fn delete_consumer(&self, name: &str) {
        let s = self.rt.block_on(self.js.get_stream("STATE_UPDATES")).unwrap();
        self.rt.block_on(s.delete_consumer(name)).unwrap();
    }
    fn delete_stream(&self) {
        self.rt.block_on(self.js.delete_stream("STATE_UPDATES")).unwrap();
    }
}

/// With the right one it connects, with a wrong one it says so, and the drive works all the same; and nothing that can be
/// read tells the secret.
#[test]
fn token_password_nkey_and_credentials() {
    drive_only!();
    let w = World::new();
    let file = |name: &str, text: &str| {
        let path = w.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };

    let server = NatsServer::with("authorization { user: tcfs, password: quite-right }");
    let a = w.device("ann").env("TCFS_NATS_URL", format!("nats://tcfs:quite-wrong@127.0.0.1:{}", server.port)).mount();
    let why = is_not(&a);
    assert!(why.contains("authorization"), "{why}");
    fs::write(a.path("f"), "kept").unwrap();
    a.wait();
    keeps_secret(&a, "quite-wrong");
    a.unmount();
    let url = format!("nats://tcfs:quite-right@127.0.0.1:{}", server.port);
    check_auth(&w, "bea", &[("TCFS_NATS_URL", &url)], "quite-right");
    let password = file("password", "quite-right\n");
    check_auth(
        &w,
        "bob",
        &[("TCFS_NATS_URL", &server.url()), ("TCFS_NATS_USER", "tcfs"), ("TCFS_NATS_PASSWORD_FILE", &password)],
        "quite-right",
    );

    let server = NatsServer::with("authorization { token: open-sesame }");
    let token = file("token", "open-sesame\n");
    check_auth(&w, "cyd", &[("TCFS_NATS_URL", &server.url()), ("TCFS_NATS_TOKEN_FILE", &token)], "open-sesame");
    check_auth(&w, "cas", &[("TCFS_NATS_URL", &format!("nats://open-sesame@127.0.0.1:{}", server.port))], "open-sesame");
    check_auth(&w, "cat", &[("TCFS_NATS_URL", &server.url()), ("TCFS_NATS_TOKEN", "open-sesame")], "open-sesame");

    let key = KeyPair::new_user();
    let server = NatsServer::with(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key()));
    let seed = file("seed", &key.seed().unwrap());
    check_auth(&w, "dan", &[("TCFS_NATS_URL", &server.url()), ("TCFS_NATS_NKEY_FILE", &seed)], &key.seed().unwrap());

    let (config, creds) = with_credentials();
    let server = NatsServer::with(&config);
    let path = file("creds", &creds);
    let seed = creds.lines().find(|l| l.starts_with("SU")).unwrap();
    check_auth(&w, "eve", &[("TCFS_NATS_URL", &server.url()), ("TCFS_NATS_CREDS_FILE", &path)], seed);
}

fn check_auth(w: &Arc<World>, name: &str, env: &[(&str, &str)], secret: &str) {
    let mut m = w.device(name).env("TCFS_LOG_LEVEL", "trace");
    for (k, v) in env {
        m = m.env(k, *v);
    }
    let m = m.mount();
    is_connected(&m);
    keeps_secret(&m, secret);
    m.unmount();
}

/// A server of the kind that trusts an operator, and the credentials of a user there.
fn with_credentials() -> (String, String) {
    let (operator, system, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let of_operator = jwt(&operator, &operator, json!({"type": "operator", "version": 2, "system_account": system.public_key()}));
    let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let plain = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
    let of_account = jwt(&operator, &account, json!({"type": "account", "version": 2, "limits": unlimited}));
    let of_system = jwt(&operator, &system, json!({"type": "account", "version": 2, "limits": plain}));
    let of_user = jwt(&account, &user, json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let config = format!(
        "operator: {of_operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {of_account}, {}: {of_system} }}",
        system.public_key(),
        account.public_key(),
        system.public_key()
    );
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    (config, creds)
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let part = |v: Value| BASE64URL.encode(v.to_string());
    let claims = json!({"jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test", "sub": subject.public_key(), "nats": nats});
    let body = format!("{}.{}", part(json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(claims));
    format!("{body}.{}", BASE64URL.encode(issuer.sign(body.as_bytes()).unwrap()))
}

/// A server with a certificate of an authority of one's own: known with `ca_file`, refused without, and what is not
/// encrypted is not spoken to where a `ca_file` is set.
#[test]
fn tls_with_a_certificate_authority_of_ones_own() {
    drive_only!();
    let w = World::new();
    let tls = certificates(w.dir());
    let server = NatsServer::with(&format!("tls {{ cert_file: {:?}, key_file: {:?} }}", tls.join("server.pem"), tls.join("server.key")));
    let url = format!("tls://127.0.0.1:{}", server.port);
    let ca = |name: &str| tls.join(name).display().to_string();
    let a = w.device("ann").env("TCFS_NATS_URL", &url).env("TCFS_NATS_CA_FILE", ca("ca.pem")).mount();
    is_connected(&a);
    assert_eq!(doctor(&a).0, "ok");
    let b = w.device("bob").env("TCFS_NATS_URL", &url).mount();
    is_not(&b);
    b.unmount();
    let b = w.device("bea").env("TCFS_NATS_URL", &url).env("TCFS_NATS_CA_FILE", ca("other.pem")).mount();
    is_not(&b);
    b.unmount();
    let plain = NatsServer::start();
    let c = w.device("cyd").env("TCFS_NATS_URL", plain.url()).env("TCFS_NATS_CA_FILE", ca("ca.pem")).mount();
    is_not(&c);
}

/// An authority, a server's key and certificate by it, and another authority.
fn certificates(below: &Path) -> PathBuf {
    let dir = below.join("tls");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").unwrap();
    let openssl = |args: &str| {
        let out = Command::new("openssl").args(args.split(' ')).current_dir(&dir).output().expect("openssl is installed");
        assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for ca in ["ca", "other"] {
        openssl(&format!("req -x509 {key} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"));
    }
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san");
    dir
}

/// Two sites with a leaf node each, and a hub. What is saved at one is seen at the other; while the hub is away each site
/// goes on by itself, and afterwards the other catches up by itself.
#[test]
fn leaf_nodes_go_on_without_their_hub() {
    drive_only!();
    let weed = Weed::start();
    let port = nats::free_port();
    let account = "accounts { TCFS: { jetstream: enabled, users: [ { user: tcfs, password: p } ] } }";
    let mut hub = NatsServer::in_domain(
        "hub",
        &format!(
            "{account}\nleafnodes {{ listen: 127.0.0.1:{port}, authorization {{ users: [ {{ user: leaf, password: l, account: TCFS }} ] }} }}"
        ),
    );
    let remote = format!(
        "{account}\nleafnodes {{ remotes: [ {{ url: \"nats://leaf:l@127.0.0.1:{port}\", account: TCFS, deny_imports: [\"STATE.>\"], deny_exports: [\"STATE.>\"] }} ] }}"
    );
    let (east, west) = (NatsServer::in_domain("east", &remote), NatsServer::in_domain("west", &remote));
    let url = |s: &NatsServer| format!("nats://tcfs:p@127.0.0.1:{}", s.port);
    let w = World::new();
    let at = |name: &str, s: &NatsServer| setup(&w, name, &weed, &url(s)).env("TCFS_NATS_HUB", "hub").mount();
    let (a, b, c) = (at("ann", &east), at("bob", &west), at("cyd", &east));
    for m in [&a, &b, &c] {
        until("leaf and hub are joined", SOON, || {
            let n = m.status()["nats"].clone();
            (n["state"] == "connected" && n["hub_error"].is_null()).then_some(())
        });
    }
    fs::write(a.path("f"), "from the east").unwrap();
    shows(&b, "f", "from the east");
    shows(&c, "f", "from the east");
    fs::write(b.path("g"), "from the west").unwrap();
    shows(&a, "g", "from the west");

    hub.kill();
    fs::write(a.path("alone"), "the hub is away").unwrap();
    a.wait();
    // The other machine of this site hears it; so does nobody beyond the hub, until it is back.
    shows(&c, "alone", "the hub is away");
    assert_eq!(a.status()["nats"]["state"], "connected");
    fs::write(b.path("also alone"), "x").unwrap();
    b.wait();
    hub.restart();
    shows(&b, "alone", "the hub is away");
    shows(&a, "also alone", "x");
    // No publish came back and was stored again.
    let ask = Ask::new(&east.url());
    let stored = |ask: &Ask| ask.rt.block_on(ask.js.get_stream("STATE_UPDATES")).unwrap().cached_info().state.messages;
    let (before, files) = (stored(&ask), 20);
    for i in 0..files {
        fs::write(b.path(format!("w{i}")), "x").unwrap();
    }
    shows(&a, &format!("w{}", files - 1), "x");
    std::thread::sleep(Duration::from_secs(3));
    // Now and then somebody says that it is there.
    assert!(stored(&ask) - before <= files + 6, "{} messages for {files} files", stored(&ask) - before);
}
