//! A real S3 server that is not there, refuses, lacks the bucket, or holds another store.

use super::weed::{ACCESS_KEY, SECRET_KEY, Weed};
use super::{answer, refused, s};
use crate::common::{Mounted, World, until};
use crate::drive_only;
use std::fs;
use std::time::{Duration, Instant};

fn machine(w: &std::sync::Arc<World>, name: &str, endpoint: &str, url: &str, secret: &str) -> Mounted {
    w.device(name).s3(url, endpoint, (ACCESS_KEY, secret)).env("TCFS_POLL_INTERVAL", "1s").off()
}

#[test]
fn a_server_that_is_not_as_it_should_be_is_told_with_what_to_do() {
    drive_only!();
    let mut weed = Weed::start();
    let w = World::new();
    let endpoint = weed.endpoint();
    let file = w.dir().join("f");
    fs::write(&file, "text").unwrap();
    // The bucket does not exist: the first use makes it.
    let a = machine(&w, "ann", &endpoint, "s3://tcfs/default", SECRET_KEY);
    let p = answer(&a.cli(&["--json", "push", s(&file)]).ok());
    assert_eq!(p["queued"], false, "{p}");
    let b = machine(&w, "bob", &endpoint, "s3://tcfs/default", SECRET_KEY);
    b.cli(&["pull", "tcfs/default/f", s(&w.dir().join("out"))]).ok();
    assert_eq!(fs::read_to_string(w.dir().join("out")).unwrap(), "text");
    let doctor = b.cli(&["doctor"]).ok();
    assert!(doctor.stdout.contains("canary written, read and deleted"), "{}", doctor.stdout);
    // What the registry says now is what is listed later, when it cannot be asked.
    let list = answer(&b.cli(&["--json", "device", "list"]).ok());
    assert_eq!((list["offline"].as_bool(), list["devices"].as_u64()), (Some(false), Some(2)), "{list}");

    // Credentials out of a file in AWS's format, a section of it.
    let credentials = w.dir().join("credentials");
    let text = format!(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n[fleet]\naws_access_key_id = {ACCESS_KEY}\n\
         aws_secret_access_key = {SECRET_KEY}\n"
    );
    fs::write(&credentials, text).unwrap();
    let by_file = |profile: &str| {
        w.device(&format!("cora-{profile}"))
            .env("TCFS_STORE", "s3://tcfs/default")
            .env("TCFS_S3_ENDPOINT", &endpoint)
            .env("TCFS_S3_ALLOW_HTTP", "true")
            .env("TCFS_S3_CREDENTIALS_FILE", s(&credentials))
            .env("TCFS_S3_PROFILE", profile)
            .off()
    };
    by_file("fleet").cli(&["pull", "f", s(&w.dir().join("out2"))]).ok();
    assert_eq!(fs::read_to_string(w.dir().join("out2")).unwrap(), "text");
    assert!(by_file("default").cli(&["pull", "f", s(&w.dir().join("out3"))]).code != 0);

    // A mistyped prefix, and a mistyped bucket: there is no store of ours.
    for url in ["s3://tcfs/defualt", "s3://tfcs/default"] {
        for args in [&["pull", "f", "/tmp/"][..], &["mount", s(a.root())], &["push", s(&file)]] {
            let d = a.cli(&[&["--store", url][..], args].concat());
            refused(&d, 2, &["there is no store at", "check the spelling of `store`", "tcfs store move"]);
        }
    }
    // Wrong credentials. A machine that knows the store works offline and says why; a new one is refused.
    let wrong = |args: &[&str]| {
        let mut c = a.tcfs(args);
        c.env("TCFS_S3_SECRET_ACCESS_KEY", "not-the-secret");
        crate::common::cli::run(&mut c, Duration::from_secs(60))
    };
    let ls = wrong(&["ls"]).ok();
    assert_eq!(ls.stdout, "f\n");
    let doctor = wrong(&["doctor"]).exit(1);
    assert!(
        doctor.stdout.contains("fail  store") && doctor.stdout.contains("403") && doctor.stdout.contains("set TCFS_S3_ACCESS_KEY_ID"),
        "{}",
        doctor.stdout
    );
    let p = answer(&wrong(&["--json", "push", s(&file), "--to", "g"]).exit(3));
    assert_eq!(p["queued"], true);
    let mounted = wrong(&["mount", s(a.root())]).ok();
    assert!(mounted.stdout.contains("note: the store does not answer") && mounted.stdout.contains("403"), "{}", mounted.stdout);
    assert!(!mounted.text().contains("not-the-secret") && !a.log().contains("not-the-secret"), "the secret is shown");
    a.cli(&["unmount"]).ok();
    let new = machine(&w, "cora", &endpoint, "s3://tcfs/default", "not-the-secret");
    refused(&new.cli(&["mount", s(new.root())]), 1, &["enrolling this machine as cora", "403", "set TCFS_S3_ACCESS_KEY_ID"]);
    // No credentials, and no TLS where it is asked for.
    let none = machine(&w, "dora", &endpoint, "s3://tcfs/default", "");
    refused(&none.cli(&["mount", s(none.root())]), 2, &["s3.secret_access_key"]);
    let mut plain = b.tcfs(&["ls"]);
    plain.env("TCFS_S3_ALLOW_HTTP", "false").env("TCFS_S3_ENDPOINT", "http://s3.example.org");
    refused(&crate::common::cli::run(&mut plain, Duration::from_secs(60)), 2, &["http://s3.example.org", "allow_http"]);

    // The server is away: what is here is shown, what is written is kept, nothing takes long.
    weed.kill();
    let begun = Instant::now();
    let ls = b.cli(&["--json", "ls"]).ok();
    assert_eq!(answer(&ls)["entries"].as_u64(), Some(1));
    let list = answer(&b.cli(&["--json", "device", "list"]).ok());
    assert_eq!((list["offline"].as_bool(), list["devices"].as_u64()), (Some(true), Some(2)), "{list}");
    let mounted = b.try_mount().ok();
    assert!(mounted.stdout.contains("note: the store"), "{}", mounted.stdout);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    fs::write(b.path("h"), "offline").unwrap();
    let why = answer(&b.cli(&["--json", "wait", "--timeout", "1s"]).exit(3));
    assert!(why["pending"].as_u64().unwrap() >= 1, "{why}");
    assert!(b.cli(&["status"]).ok().stdout.contains("does not answer"));
    let stranger = machine(&w, "eve", &endpoint, "s3://tcfs/default", SECRET_KEY);
    let d = stranger.try_mount().ok();
    assert!(d.stdout.contains("this machine is enrolled as eve") && d.stdout.contains("note: the store"), "{}", d.stdout);
    stranger.cli(&["unmount"]).ok();

    weed.restart();
    b.cli(&["wait"]).ok();
    // News come at the poll interval that was set, not at the 30 s of a server: three times one after the other.
    for n in 0..3 {
        let to = format!("poll{n}");
        a.cli(&["push", s(&file), "--to", &to]).ok();
        until("the news are here", Duration::from_secs(20), || b.path(&to).exists().then_some(()));
    }
    b.cli(&["unmount"]).ok();
    until("ann sees it", Duration::from_secs(60), || (a.cli(&["pull", "--force", "h", s(&w.dir().join("h"))]).code == 0).then_some(()));
    assert_eq!(fs::read_to_string(w.dir().join("h")).unwrap(), "offline");
}

/// What is set of a server's region and of temporary credentials is in each request.
#[test]
fn region_and_session_token_are_sent() {
    use std::io::{Read, Write};
    let w = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let token = w.dir().join("token");
    fs::write(&token, "of-the-file\n").unwrap();
    let seen = std::thread::spawn(move || {
        let mut heads = Vec::new();
        // One machine after the other, each with as many attempts as it makes.
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buf = [0; 8192];
            let n = stream.read(&mut buf).unwrap();
            let head = String::from_utf8_lossy(&buf[..n]).into_owned();
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if head.starts_with("GET /the-end") {
                return heads;
            }
            heads.push(head.to_lowercase());
        }
        heads
    });
    let ask = |name: &str, env: (&str, &str)| {
        let m = machine(&w, name, &endpoint, "s3://tcfs/default", SECRET_KEY);
        let mut c = m.tcfs(&["store", "show"]);
        c.env("TCFS_S3_REGION", "eu-test-7").env(env.0, env.1);
        crate::common::cli::run(&mut c, Duration::from_secs(120));
    };
    ask("ann", ("TCFS_S3_SESSION_TOKEN", "of-the-key"));
    ask("bob", ("TCFS_S3_SESSION_TOKEN_FILE", s(&token)));
    let mut end = std::net::TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
    end.write_all(b"GET /the-end HTTP/1.1\r\n\r\n").unwrap();
    let heads = seen.join().unwrap();
    for token in ["x-amz-security-token: of-the-key\r", "x-amz-security-token: of-the-file\r"] {
        assert!(heads.iter().any(|h| h.contains(token) && h.contains("/eu-test-7/s3/aws4_request")), "{token}: {heads:#?}");
    }
}
