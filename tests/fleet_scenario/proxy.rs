//! A TCP proxy on the loopback interface: slow upwards, or cut off.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Ends, with its connections, when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    /// Bytes a second that all connections together send to the server; 0: as they come.
    rate: AtomicU64,
    cut: AtomicBool,
    ended: AtomicBool,
    sent: AtomicU64,
    /// Until when the line is taken, nanoseconds since `begun`.
    busy: AtomicU64,
    begun: Instant,
}

impl Proxy {
    /// To a port of this machine.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            to: port,
            rate: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            begun: Instant::now(),
        });
        let s = shared.clone();
        std::thread::spawn(move || {
            for c in listener.incoming().flatten() {
                if s.ended.load(Ordering::SeqCst) {
                    return;
                }
                if !s.cut.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", s.to))
                {
                    s.clone().join(c, server);
                }
            }
        });
        Proxy { port: own, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes a second towards the server; 0: as they come.
    pub fn slow(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    /// Ends all connections and takes no new ones, or takes them again.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::SeqCst);
    }

    /// Bytes sent to the server so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn join(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        for (mut from, mut to, up) in
            [(client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"), true), (server, client, false)]
        {
            let s = self.clone();
            let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
            std::thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                loop {
                    if s.cut.load(Ordering::SeqCst) {
                        break;
                    }
                    match from.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(n) => {
                            if up {
                                s.pace(n);
                                s.sent.fetch_add(n as u64, Ordering::SeqCst);
                            }
                            if to.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                        }
                        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                        Err(_) => break,
                    }
                }
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    /// Waits for the turn of `n` bytes on a line that all share.
    fn pace(&self, n: usize) {
        let rate = self.rate.load(Ordering::SeqCst);
        if rate == 0 {
            return;
        }
        let takes = n as u64 * 1_000_000_000 / rate;
        let now = self.begun.elapsed().as_nanos() as u64;
        let end = self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |b| Some(b.max(now) + takes)).unwrap_or(now).max(now) + takes;
        std::thread::sleep(Duration::from_nanos(end - now));
    }
}
