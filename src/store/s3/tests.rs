use super::error::kind_of;
use super::*;
use tokio::net::TcpListener;

#[test]
fn plain_http_to_another_machine_must_be_allowed() {
    for local in ["http://127.0.0.1:8333", "http://localhost:1/", "http://[::1]:9000", "https://s3.example.org"] {
        check_endpoint(local, false).unwrap();
    }
    let e = check_endpoint("http://10.0.0.7:8333", false).unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
    assert!(e.hint_text().unwrap().contains("allow_http"));
    check_endpoint("http://10.0.0.7:8333", true).unwrap();
    for bad in ["10.0.0.7:8333", "ftp://x", "https://", "https://user:secret@host"] {
        assert!(check_endpoint(bad, true).is_err(), "{bad}");
    }
    let e = check_endpoint("https://user:secret@host", true).unwrap_err();
    assert!(!format!("{e:?}").contains("user:secret"));
}

#[test]
fn answers_mean_what_callers_need() {
    for (status, code, kind) in [
        (404, "NoSuchKey", Kind::NotFound),
        (403, "SignatureDoesNotMatch", Kind::Unauthorized),
        (500, "InternalError", Kind::Unavailable),
        (503, "SlowDown", Kind::Unavailable),
        (400, "RequestTimeout", Kind::Unavailable),
        (412, "PreconditionFailed", Kind::Exists),
        (507, "", Kind::NoSpace),
        (501, "NotImplemented", Kind::Unsupported),
        (301, "PermanentRedirect", Kind::Usage),
    ] {
        assert_eq!(kind_of(status, code), kind, "{status} {code}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let o = S3Options { secret_access_key: Some("hush".into()), session_token: Some("hush".into()), ..Default::default() };
    assert!(!format!("{o:?}").contains("hush"));
    let half = S3Options { access_key_id: Some("A".into()), ..Default::default() };
    assert_eq!(S3Store::new("tcfs", &half).err().map(|e| e.kind()), Some(Kind::Usage));
}

/// A server that answers each connection's first request with `answer`, or never if there is none, and counts.
async fn server(answer: Option<&'static str>) -> (S3Options, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut c, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buf = vec![0; 65536];
                if c.read(&mut buf).await.unwrap_or(0) == 0 {
                    return;
                }
                counted.fetch_add(1, Ordering::SeqCst);
                match answer {
                    Some(a) => drop(c.write_all(a.as_bytes()).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    let options = S3Options {
        endpoint: Some(endpoint),
        access_key_id: Some("k".into()),
        secret_access_key: Some("s".into()),
        try_timeout: Duration::from_millis(300),
        total_timeout: Duration::from_secs(5),
        tries: 3,
        ..Default::default()
    };
    (options, requests)
}

const ERROR_500: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_put_is_sent_again_only_where_nobody_else_writes() {
    let (options, requests) = server(Some(ERROR_500)).await;
    let s = S3Store::new("tcfs", &options).unwrap();
    let body = Bytes::from_static(b"x");
    let e = s.put("default/chunks/aa", body.clone(), PutMode::Overwrite).await.unwrap_err();
    assert_eq!((e.kind(), requests.swap(0, Ordering::SeqCst)), (Kind::Unavailable, 3));
    let e = s.put("tcfs-meta/devices.json", body, PutMode::Overwrite).await.unwrap_err();
    assert_eq!((e.kind(), requests.swap(0, Ordering::SeqCst)), (Kind::Unavailable, 1));
    s.get("tcfs-meta/devices.json").await.unwrap_err();
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout() {
    let (options, requests) = server(None).await;
    let s = S3Store::new("tcfs", &options).unwrap();
    let begun = Instant::now();
    for n in 1..=3 {
        let e = match n {
            1 => s.list("default/log/", None).await.unwrap_err(),
            2 => s.get("default/chunks/aa").await.unwrap_err(),
            _ => s.put("default/chunks/aa", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap_err(),
        };
        assert_eq!((e.kind(), requests.load(Ordering::SeqCst)), (Kind::Timeout, 3 * n), "{e}");
    }
    assert!(begun.elapsed() < options.total_timeout);
}

#[tokio::test]
async fn a_body_cut_short_is_never_taken_for_the_object() {
    let (options, _) = server(Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this")).await;
    let e = S3Store::new("tcfs", &options).unwrap().get("default/chunks/aa").await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\nConnection: close\r\n\r\nx";
    let (options, requests) = server(Some(huge)).await;
    let e = S3Store::new("tcfs", &options).unwrap().get("default/chunks/aa").await.unwrap_err();
    assert_eq!((e.kind(), requests.load(Ordering::SeqCst)), (Kind::Corrupt, 1), "{e}");
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = S3Options { endpoint: Some(format!("http://{free}")), tries: 1, ..Default::default() };
    let e = S3Store::new("tcfs", &options).unwrap().get("default/store.json").await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    assert!(e.to_string().contains("refused"), "{e}");
}
