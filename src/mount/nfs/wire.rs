//! Calls and replies as they go over the wire: ONC RPC (RFC 5531) in records over TCP, arguments in XDR (RFC 4506).
//!
//! Must: nothing is allocated because a client says that something is long: what a call holds is a slice of its record.

use nfs3_types::nfs3::{fattr3, nfs_fh3, nfsstat3, nfstime3, sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3};
use nfs3_types::rpc::{accept_stat, auth_flavor, auth_stat, msg_type, reject_stat, reply_stat};
use nfs3_types::xdr_codec::{Opaque, Pack};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of data that one call or reply carries at most.
pub(super) const DATA_MAX: u32 = 1 << 20;
/// Bytes of the reply to a READ before the data: mark, head, status, attributes, count, end, length.
pub(super) const READ_HEAD: usize = 4 + 24 + 4 + 4 + 84 + 4 + 4 + 4;
/// Longest record: the data, and what stands around it.
const RECORD_MAX: usize = DATA_MAX as usize + (64 << 10);
/// Longest credential (RFC 5531).
const CREDENTIAL_MAX: usize = 400;
/// Longest handle.
const HANDLE_MAX: usize = 64;

/// Reads a record; none at the end of the connection.
///
/// Errors: of the connection; `InvalidData` for one that is longer than any call.
pub(super) async fn read_record(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let mark = match from.read_u32().await {
            Ok(m) => m,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && record.is_empty() => return Ok(None),
            Err(e) => return Err(e),
        };
        let (len, last) = ((mark & 0x7fff_ffff) as usize, mark & 0x8000_0000 != 0);
        if record.len() + len > RECORD_MAX || len == 0 && !last {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is longer than any call"));
        }
        let at = record.len();
        record.resize(at + len, 0);
        from.read_exact(&mut record[at..]).await?;
        if last {
            return Ok(Some(record));
        }
    }
}

/// Who calls, as he says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// The head of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) xid: u32,
    pub(super) rpc_version: u32,
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    /// None where the call does not say.
    pub(super) caller: Option<Caller>,
}

/// What cannot be read as what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbage;

/// The rest of a record, to be read from its front.
#[derive(Clone, Debug)]
pub(super) struct Args<'a>(pub(super) &'a [u8]);

impl<'a> Args<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Garbage> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Garbage)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Garbage> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().map_err(|_| Garbage)?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Garbage> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().map_err(|_| Garbage)?))
    }

    /// Bytes with their length before them.
    pub(super) fn opaque(&mut self, max: usize) -> Result<&'a [u8], Garbage> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(Garbage);
        }
        let bytes = self.take(len)?;
        self.take(len.next_multiple_of(4) - len)?;
        Ok(bytes)
    }

    pub(super) fn handle(&mut self) -> Result<nfs_fh3, Garbage> {
        Ok(nfs_fh3 { data: Opaque::owned(self.opaque(HANDLE_MAX)?.to_vec()) })
    }

    /// A name in a directory, or the target of a link: as long as the record is, so that a long one gets its own error.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Garbage> {
        self.opaque(RECORD_MAX)
    }

    pub(super) fn verifier(&mut self) -> Result<[u8; 8], Garbage> {
        self.take(8)?.try_into().map_err(|_| Garbage)
    }

    fn flag(&mut self) -> Result<bool, Garbage> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    fn number(&mut self) -> Result<Option<u32>, Garbage> {
        if self.flag()? { self.u32().map(Some) } else { Ok(None) }
    }

    pub(super) fn time(&mut self) -> Result<nfstime3, Garbage> {
        Ok(nfstime3 { seconds: self.u32()?, nseconds: self.u32()? })
    }

    /// A time that must be the present one.
    pub(super) fn guard(&mut self) -> Result<Option<nfstime3>, Garbage> {
        if self.flag()? { self.time().map(Some) } else { Ok(None) }
    }

    pub(super) fn attributes(&mut self) -> Result<sattr3, Garbage> {
        Ok(sattr3 {
            mode: self.number()?.map_or(set_mode3::None, set_mode3::Some),
            uid: self.number()?.map_or(set_uid3::None, set_uid3::Some),
            gid: self.number()?.map_or(set_gid3::None, set_gid3::Some),
            size: if self.flag()? { set_size3::Some(self.u64()?) } else { set_size3::None },
            atime: match self.u32()? {
                0 => set_atime::DONT_CHANGE,
                1 => set_atime::SET_TO_SERVER_TIME,
                2 => set_atime::SET_TO_CLIENT_TIME(self.time()?),
                _ => return Err(Garbage),
            },
            mtime: match self.u32()? {
                0 => set_mtime::DONT_CHANGE,
                1 => set_mtime::SET_TO_SERVER_TIME,
                2 => set_mtime::SET_TO_CLIENT_TIME(self.time()?),
                _ => return Err(Garbage),
            },
        })
    }

    /// The head of a call; what follows are its arguments.
    pub(super) fn call(&mut self) -> Result<Call, Garbage> {
        let xid = self.u32()?;
        if self.u32()? != msg_type::CALL as u32 {
            return Err(Garbage);
        }
        let [rpc_version, program, version, procedure] = [self.u32()?, self.u32()?, self.u32()?, self.u32()?];
        let flavor = self.u32()?;
        let mut credential = Args(self.opaque(CREDENTIAL_MAX)?);
        let caller = if flavor == auth_flavor::AUTH_UNIX as u32 { Some(credential.caller()?) } else { None };
        self.u32()?;
        self.opaque(CREDENTIAL_MAX)?;
        Ok(Call { xid, rpc_version, program, version, procedure, caller })
    }

    fn caller(&mut self) -> Result<Caller, Garbage> {
        self.u32()?;
        self.opaque(255)?;
        let (uid, gid, n) = (self.u32()?, self.u32()?, self.u32()?);
        if n > 16 {
            return Err(Garbage);
        }
        let groups = (0..n).map(|_| self.u32()).collect::<Result<_, _>>()?;
        Ok(Caller { uid, gid, groups })
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Garbage> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbage) }
    }
}

/// A reply, whole with its mark.
#[derive(Clone, Debug)]
pub(super) struct Reply(pub(super) Vec<u8>);

impl Reply {
    fn new(xid: u32, stat: reply_stat) -> Reply {
        let mut r = Reply(vec![0; 4]);
        for n in [xid, msg_type::REPLY as u32, stat as u32] {
            r.u32(n);
        }
        r
    }

    fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn accepted(xid: u32, stat: accept_stat) -> Reply {
        let mut r = Reply::new(xid, reply_stat::MSG_ACCEPTED);
        // A verifier of no flavor.
        for n in [0, 0, stat as u32] {
            r.u32(n);
        }
        r
    }

    fn finish(mut self) -> Reply {
        let mark = (self.0.len() - 4) as u32 | 0x8000_0000;
        self.0[..4].copy_from_slice(&mark.to_be_bytes());
        self
    }

    /// A result.
    pub(super) fn of(xid: u32, result: &impl Pack) -> Reply {
        let mut r = Reply::accepted(xid, accept_stat::SUCCESS);
        r.0.reserve(result.packed_size());
        match result.pack(&mut r.0) {
            Ok(_) => r.finish(),
            Err(e) => {
                tracing::error!(error = %e, "a result could not be written");
                Reply::failed(xid, accept_stat::SYSTEM_ERR)
            }
        }
    }

    /// What a READ gave: `bytes` lie behind [`READ_HEAD`] bytes of room.
    pub(super) fn read(xid: u32, mut bytes: Vec<u8>, attributes: &fattr3, eof: bool) -> Reply {
        let len = bytes.len() - READ_HEAD;
        let mut head = Reply::accepted(xid, accept_stat::SUCCESS);
        head.u32(nfsstat3::NFS3_OK as u32);
        head.u32(1);
        // Numbers only, into memory.
        let _ = attributes.pack(&mut head.0);
        for n in [len as u32, u32::from(eof), len as u32] {
            head.u32(n);
        }
        bytes[..READ_HEAD].copy_from_slice(&head.0);
        bytes.resize(READ_HEAD + len.next_multiple_of(4), 0);
        Reply(bytes).finish()
    }

    /// No result: there is no such procedure, or its arguments make no sense.
    pub(super) fn failed(xid: u32, why: accept_stat) -> Reply {
        Reply::accepted(xid, why).finish()
    }

    /// There is another version of the program.
    pub(super) fn other_version(xid: u32, version: u32) -> Reply {
        let mut r = Reply::accepted(xid, accept_stat::PROG_MISMATCH);
        r.u32(version);
        r.u32(version);
        r.finish()
    }

    /// Another version of RPC.
    pub(super) fn other_rpc(xid: u32) -> Reply {
        let mut r = Reply::new(xid, reply_stat::MSG_DENIED);
        for n in [reject_stat::RPC_MISMATCH as u32, 2, 2] {
            r.u32(n);
        }
        r.finish()
    }

    /// Not for whoever this is.
    pub(super) fn refused(xid: u32) -> Reply {
        let mut r = Reply::new(xid, reply_stat::MSG_DENIED);
        for n in [reject_stat::AUTH_ERROR as u32, auth_stat::AUTH_TOOWEAK as u32] {
            r.u32(n);
        }
        r.finish()
    }
}
