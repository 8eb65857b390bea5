//! A front end's end of the socket: a [`Service`] that is somewhere else.
//!
//! Each call opens a connection of its own, so that dropping the call (Ctrl-C) cancels it on the other side and two
//! calls never wait for each other.

use super::paths::short_dir;
use super::protocol::{FromClient, FromDaemon, Hello, Request, Response};
use super::service::{Progress, Service};
use super::socket::private_dir;
use crate::error::{Error, IoContext, Kind, Result};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long a daemon may take to greet. It does so before anything else, so silence means that it hangs.
const GREETING: Duration = Duration::from_secs(5);

/// How long a request may take that only looks at what the daemon has at hand.
const QUICK: Duration = Duration::from_secs(30);

/// The daemon behind a socket.
pub struct Client {
    socket: PathBuf,
    hello: Hello,
}

impl Client {
    /// Finds the daemon behind `socket`. `NoDaemon` if there is none, `Timeout` if it hangs, `Unsupported` if it
    /// speaks another protocol.
    pub async fn connect(socket: &Path) -> Result<Client> {
        let (_, hello) = open(socket).await?;
        Ok(Client { socket: socket.to_owned(), hello })
    }

    /// What it said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }
}

#[async_trait]
impl Service for Client {
    async fn call(&self, request: Request, progress: &Progress) -> Result<Response> {
        let quick = matches!(request, Request::Status | Request::Stay | Request::Stop);
        let limit = if quick { QUICK } else { Duration::MAX };
        tokio::time::timeout(limit, self.ask(request, progress)).await.unwrap_or_else(|_| Err(hangs()))
    }
}

impl Client {
    async fn ask(&self, request: Request, progress: &Progress) -> Result<Response> {
        let (mut stream, _) = open(&self.socket).await?;
        let mut line =
            serde_json::to_vec(&FromClient::Request(request)).map_err(|e| Error::new(Kind::Internal, "writing a request").source(e))?;
        line.push(b'\n');
        let gone = || format!("the daemon (process {}) went away while working on it", self.hello.pid);
        stream.write_all(&line).await.doing(gone)?;
        loop {
            match read(&mut stream).await? {
                Some(FromDaemon::Progress(p)) => progress.report(p),
                Some(FromDaemon::Item(i)) => progress.item(i).await?,
                Some(FromDaemon::Result(r)) => return Ok(*r),
                Some(FromDaemon::Error(e)) => return Err(e.into()),
                Some(FromDaemon::Hello(_)) => {}
                None => return Err(Error::new(Kind::Interrupted, gone()).hint("its log says why: `tcfs status` shows where it is")),
            }
        }
    }
}

async fn open(socket: &Path) -> Result<(BufReader<UnixStream>, Hello)> {
    if let Some(dir) = short_dir(socket).filter(|d| d.exists()) {
        // In a directory below /tmp somebody else could wait for us.
        private_dir(dir, false)?;
    }
    let stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            Error::new(Kind::NoDaemon, "no daemon is running").hint("`tcfs mount` starts it")
        }
        _ => Error::io(format!("connecting to the daemon at {}", socket.display()), e),
    })?;
    let mut stream = BufReader::new(stream);
    match tokio::time::timeout(GREETING, read(&mut stream)).await {
        Ok(greeting) => match greeting? {
            Some(FromDaemon::Hello(hello)) => {
                hello.check()?;
                Ok((stream, hello))
            }
            Some(FromDaemon::Error(e)) => Err(e.into()),
            // It was just stopping.
            None => Err(Error::new(Kind::NoDaemon, "no daemon is running, it is just ending").hint("`tcfs mount` starts it again")),
            Some(_) => Err(Error::new(Kind::Unsupported, format!("{} does not speak as a tcfs daemon", socket.display()))),
        },
        Err(_) => Err(hangs()),
    }
}

fn hangs() -> Error {
    Error::new(Kind::Timeout, "the daemon does not answer")
        .hint("`tcfs unmount --force` takes the mount away; its log may say what it waits for")
}

async fn read(stream: &mut BufReader<UnixStream>) -> Result<Option<FromDaemon>> {
    let mut line = Vec::new();
    // A daemon that dies in the middle of a line looks like one that closed.
    match stream.read_until(b'\n', &mut line).await {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        other => other.doing(|| "reading the daemon's answer")?,
    };
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|e| {
        Error::new(Kind::Unsupported, "the daemon's answer is not understood")
            .source(e)
            .hint("`tcfs daemon restart` starts the installed version")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::protocol::*;
    use crate::daemon::service::Update;
    use crate::daemon::socket::Server;
    use std::sync::Arc;
    use tokio::sync::{Notify, watch};

    /// Answers `ls` with three items, `status` with what it is, hangs on `wait`, fails on the rest.
    #[derive(Default)]
    struct Fake {
        started: Notify,
        dropped: Arc<Notify>,
    }

    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[async_trait]
    impl Service for Fake {
        async fn call(&self, request: Request, progress: &Progress) -> Result<Response> {
            match request {
                Request::Ls(ls) => {
                    for n in 0..1000u64 {
                        progress.files("listing", n, Some(1000), None);
                        progress.item(Item::Entry(Entry { path: format!("{}/{n}", ls.path), ..Entry::default() })).await?;
                    }
                    Ok(Response::Listed(Listed { path: ls.path, entries: 1000, ..Listed::default() }))
                }
                Request::Status => Ok(Response::Status(Status { pid: 5, ..Status::default() })),
                Request::Wait(_) => {
                    let _gone = OnDrop(self.dropped.clone());
                    self.started.notify_one();
                    std::future::pending().await
                }
                _ => Err(Error::new(Kind::NotEnrolled, "no identity").hint("enrol")),
            }
        }
    }

    struct Up {
        client: Client,
        fake: Arc<Fake>,
        stop: watch::Sender<bool>,
        served: tokio::task::JoinHandle<()>,
        socket: PathBuf,
        _tmp: tempfile::TempDir,
    }

    async fn up() -> Up {
        let tmp = tempfile::tempdir().unwrap();
        let socket = tmp.path().join("tcfs.sock");
        let server = Server::bind(&socket).unwrap();
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(server.serve(fake.clone(), stopped));
        let client = Client::connect(&socket).await.unwrap();
        Up { client, fake, stop, served, socket, _tmp: tmp }
    }

    #[tokio::test]
    async fn a_list_arrives_whole_and_in_order_and_then_the_sum() {
        let up = up().await;
        let (progress, mut updates) = Progress::channel(4);
        let items = tokio::spawn(async move {
            let mut paths = Vec::new();
            while let Some(u) = updates.recv().await {
                if let Update::Item(Item::Entry(e)) = u {
                    paths.push(e.path);
                }
            }
            paths
        });
        let r = up.client.call(Request::Ls(Ls { path: "d".into(), ..Ls::default() }), &progress).await.unwrap();
        drop(progress);
        assert!(matches!(r, Response::Listed(l) if l.entries == 1000));
        assert_eq!(items.await.unwrap(), (0..1000).map(|n| format!("d/{n}")).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn errors_keep_kind_and_hint() {
        let up = up().await;
        let e = up.client.call(Request::DeviceList, &Progress::none()).await.unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str(), e.hint_text()), (Kind::NotEnrolled, "no identity", Some("enrol")));
    }

    #[tokio::test]
    async fn a_client_that_goes_away_cancels_its_request_and_others_go_on() {
        let up = up().await;
        let client = Client::connect(&up.socket).await.unwrap();
        let waiting = tokio::spawn(async move { client.call(Request::Wait(Wait::default()), &Progress::none()).await.map(drop) });
        up.fake.started.notified().await;
        assert!(up.client.call(Request::Status, &Progress::none()).await.is_ok());
        waiting.abort();
        up.fake.dropped.notified().await;
    }

    #[tokio::test]
    async fn stopping_closes_idle_clients_and_removes_the_socket() {
        let up = up().await;
        let mut idle = BufReader::new(UnixStream::connect(&up.socket).await.unwrap());
        assert!(matches!(read(&mut idle).await.unwrap(), Some(FromDaemon::Hello(_))));
        up.stop.send(true).unwrap();
        up.served.await.unwrap();
        assert_eq!(read(&mut idle).await.unwrap(), None);
        assert!(!up.socket.exists());
        let e = up.client.call(Request::Status, &Progress::none()).await.unwrap_err();
        assert_eq!((e.kind(), e.kind().exit_code()), (Kind::NoDaemon, 10));
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_the_connection_stays() {
        let up = up().await;
        let mut s = BufReader::new(UnixStream::connect(&up.socket).await.unwrap());
        assert!(matches!(read(&mut s).await.unwrap(), Some(FromDaemon::Hello(_))));
        s.write_all(b"{\"request\":{\"op\":\"fly\"}}\n").await.unwrap();
        let Some(FromDaemon::Error(e)) = read(&mut s).await.unwrap() else { panic!() };
        assert!(e.kind == "invalid" && e.message.contains("fly"), "{e:?}");
        s.write_all(b"{\"request\":{\"op\":\"status\"}}\n").await.unwrap();
        assert!(matches!(read(&mut s).await.unwrap(), Some(FromDaemon::Result(_))));
    }

    #[tokio::test]
    async fn a_daemon_that_dies_in_a_request_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let socket = tmp.path().join("tcfs.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let hello = serde_json::to_string(&FromDaemon::Hello(Hello::here())).unwrap() + "\n";
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut s, _) = listener.accept().await.unwrap();
                s.write_all(hello.as_bytes()).await.unwrap();
            }
        });
        let client = Client::connect(&socket).await.unwrap();
        let e = client.call(Request::Status, &Progress::none()).await.unwrap_err();
        assert!(e.to_string().contains(&std::process::id().to_string()), "{e:?}");
        server.await.unwrap();
    }
}
