//! Calls byte by byte, and many of them at a time on one connection, as a kernel has them.

use nfs3_types::nfs3::{self, NFS_PROGRAM, READ3args, nfs_fh3, nfsstat3};
use nfs3_types::xdr_codec::Pack;
use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn numbers(b: &mut Vec<u8>, all: &[u32]) {
    for n in all {
        b.extend_from_slice(&n.to_be_bytes());
    }
}

/// The head of a call of NFS by root.
fn head(xid: u32, procedure: NFS_PROGRAM) -> Vec<u8> {
    let mut b = Vec::new();
    numbers(&mut b, &[xid, 0, 2, nfs3::PROGRAM, nfs3::VERSION, procedure as u32]);
    // AUTH_UNIX: stamp, no name, root, no groups; no verifier.
    numbers(&mut b, &[1, 20, 0, 0, 0, 0, 0, 0, 0]);
    b
}

fn record(call: Vec<u8>) -> Vec<u8> {
    let mut r = (call.len() as u32 | 0x8000_0000).to_be_bytes().to_vec();
    r.extend(call);
    r
}

/// A GETATTR by root whose handle says that it is four gigabytes long.
pub fn call_with_long_handle() -> Vec<u8> {
    let mut b = head(7, NFS_PROGRAM::NFSPROC3_GETATTR);
    numbers(&mut b, &[0xffff_fff0]);
    record(b)
}

/// A read of the beginning of a file.
fn read_call(xid: u32, file: &nfs_fh3, count: u32) -> Vec<u8> {
    let mut b = head(xid, NFS_PROGRAM::NFSPROC3_READ);
    READ3args { file: file.clone(), offset: 0, count }.pack(&mut b).unwrap();
    record(b)
}

/// What reading many files at once came to.
#[derive(Debug, Default)]
pub struct Reads {
    /// How often a read was answered "later".
    pub later: usize,
    /// Every other answer than bytes.
    pub errors: Vec<u32>,
    /// The bytes of each file.
    pub bytes: Vec<Vec<u8>>,
}

/// Reads the first `count` bytes of all files at once on one connection; what is answered "later" is asked again a moment
/// later, as a kernel does.
pub fn read_all(port: u16, files: &[nfs_fh3], count: u32, limit: Duration) -> Reads {
    let mut to = TcpStream::connect(("127.0.0.1", port)).unwrap();
    to.set_read_timeout(Some(limit)).unwrap();
    let mut from = BufReader::new(to.try_clone().unwrap());
    let mut out = Reads { bytes: vec![Vec::new(); files.len()], ..Reads::default() };
    let mut under_way: HashMap<u32, usize> = HashMap::new();
    let mut xid = 1;
    for (i, f) in files.iter().enumerate() {
        under_way.insert(xid, i);
        to.write_all(&read_call(xid, f, count)).unwrap();
        xid += 1;
    }
    let began = Instant::now();
    while !under_way.is_empty() {
        assert!(began.elapsed() < limit, "{} of {} reads are not answered", under_way.len(), files.len());
        let mut mark = [0; 4];
        from.read_exact(&mut mark).unwrap();
        let mut reply = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
        from.read_exact(&mut reply).unwrap();
        let number = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
        let i = under_way.remove(&number(0)).expect("a reply to one of the calls");
        // Number, kind, accepted, no verifier (two), success, and then the status.
        match number(24) {
            0 => {
                // Attributes (84 bytes with their mark, if there are any), count, end, and the bytes with their length.
                let at = 28 + if number(28) == 1 { 88 } else { 4 };
                let len = number(at + 8) as usize;
                out.bytes[i] = reply[at + 12..at + 12 + len].to_vec();
            }
            s if s == nfsstat3::NFS3ERR_JUKEBOX as u32 => {
                out.later += 1;
                std::thread::sleep(Duration::from_millis(5));
                under_way.insert(xid, i);
                to.write_all(&read_call(xid, &files[i], count)).unwrap();
                xid += 1;
            }
            other => out.errors.push(other),
        }
    }
    out
}
