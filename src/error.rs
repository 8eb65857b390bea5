//! The one error type: a small kind that decides what callers do, what was being done, and the source.
//!
//! Must: every error that reaches a person says what failed, on which path or key, why, and what to do next.
//! `errno()` and `exit_code()` are exhaustive matches, so a new kind cannot be forgotten in either.

use std::fmt;

/// What sort of failure it is; decides errno, exit code and whether a retry makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The path, object or device does not exist.
    NotFound,
    /// Something is in the place already.
    Exists,
    /// A file operation on a directory.
    IsDir,
    /// A directory operation on something else.
    NotDir,
    /// Directory has entries.
    NotEmpty,
    /// A name no disk or peer can hold.
    BadName,
    /// A name component over 255 bytes.
    NameTooLong,
    /// Bytes that are not UTF-8 in a name.
    NotUtf8,
    /// The caller gave something that makes no sense (argument, offset, flag).
    Invalid,
    /// Permission denied by mode or ownership.
    Denied,
    /// The operation is not permitted on this object whoever asks.
    NotPermitted,
    /// A read-only place.
    ReadOnly,
    /// The disk (or our cap on it) is full.
    NoSpace,
    /// File would exceed a size limit.
    TooBig,
    /// Rename of a directory into itself, or an export boundary.
    CrossDevice,
    /// The handle or inode number is no longer valid.
    Stale,
    /// No such attribute.
    NoAttr,
    /// Value does not fit in the buffer the caller gave.
    Range,
    /// The object is in use; try again later or say `--force`.
    Busy,
    /// Not supported by this file system or platform.
    Unsupported,
    /// Too many links.
    TooManyLinks,
    /// A seek for data or a hole where there is none.
    BeyondEnd,
    /// The remote store cannot be reached or answers errors; worth a retry.
    Unavailable,
    /// A deadline passed; worth a retry.
    Timeout,
    /// The caller went away or the daemon is stopping.
    Interrupted,
    /// An object's bytes are not what its key, manifest or format says. Never retried blindly.
    Corrupt,
    /// Credentials refused.
    Unauthorized,
    /// The configuration or command line is wrong.
    Usage,
    /// No daemon is running.
    NoDaemon,
    /// Another process owns the state.
    Locked,
    /// This machine has no identity yet.
    NotEnrolled,
    /// Done, but not all of it: conflicts remain, or part is queued.
    Partial,
    /// Local disk or operating system error.
    Io,
    /// A bug: an invariant did not hold.
    Internal,
}

impl Kind {
    /// The errno a program on the mount sees.
    pub fn errno(self) -> i32 {
        match self {
            Kind::NotFound => libc::ENOENT,
            Kind::Exists => libc::EEXIST,
            Kind::IsDir => libc::EISDIR,
            Kind::NotDir => libc::ENOTDIR,
            Kind::NotEmpty => libc::ENOTEMPTY,
            Kind::BadName | Kind::Invalid | Kind::Usage => libc::EINVAL,
            Kind::NameTooLong => libc::ENAMETOOLONG,
            Kind::NotUtf8 => libc::EILSEQ,
            Kind::Denied => libc::EACCES,
            Kind::NotPermitted => libc::EPERM,
            Kind::ReadOnly => libc::EROFS,
            Kind::NoSpace => libc::ENOSPC,
            Kind::TooBig => libc::EFBIG,
            Kind::CrossDevice => libc::EXDEV,
            Kind::Stale => libc::ESTALE,
            Kind::NoAttr => libc::ENODATA,
            Kind::Range => libc::ERANGE,
            Kind::Busy | Kind::Locked => libc::EBUSY,
            Kind::Unsupported => libc::EOPNOTSUPP,
            Kind::TooManyLinks => libc::EMLINK,
            Kind::BeyondEnd => libc::ENXIO,
            Kind::Interrupted => libc::EINTR,
            // The network never shows through as anything a program could not expect of a disk.
            Kind::Unavailable | Kind::Timeout | Kind::Corrupt | Kind::Unauthorized => libc::EIO,
            Kind::NoDaemon | Kind::NotEnrolled | Kind::Partial | Kind::Io | Kind::Internal => libc::EIO,
        }
    }

    /// The exit code of the command line (0 ok, 1 failed, 2 usage, 3 in part, 10 no daemon, 11 locked, 12 not enrolled).
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Partial => 3,
            Kind::NoDaemon => 10,
            Kind::Locked => 11,
            Kind::NotEnrolled => 12,
            Kind::NotFound | Kind::Exists | Kind::IsDir | Kind::NotDir | Kind::NotEmpty => 1,
            Kind::BadName | Kind::NameTooLong | Kind::NotUtf8 | Kind::Invalid => 1,
            Kind::Denied | Kind::NotPermitted | Kind::ReadOnly | Kind::NoSpace | Kind::TooBig => 1,
            Kind::CrossDevice | Kind::Stale | Kind::NoAttr | Kind::Range | Kind::Busy => 1,
            Kind::Unsupported | Kind::TooManyLinks | Kind::BeyondEnd | Kind::Unavailable | Kind::Timeout => 1,
            Kind::Interrupted | Kind::Corrupt | Kind::Unauthorized | Kind::Io | Kind::Internal => 1,
        }
    }

    /// Stable name for `--json` and log fields.
    pub fn name(self) -> String {
        let mut out = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Timeout | Kind::Busy | Kind::Interrupted)
    }
}

/// An error: kind, what was being done (with path or key), optional hint, optional source.
pub struct Error {
    kind: Kind,
    doing: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error; `doing` is a phrase such as `reading manifest ab12… of notes/plan.md: truncated`.
    pub fn new(kind: Kind, doing: impl Into<String>) -> Self {
        Error { kind, doing: doing.into(), hint: None, source: None }
    }

    /// Attaches what the person can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Attaches the underlying error.
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts a wider context in front: `what: doing`.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.doing = format!("{what}: {}", self.doing);
        self
    }

    /// From an operating-system error, keeping what errno meant.
    pub fn io(doing: impl Into<String>, e: std::io::Error) -> Self {
        let kind = match e.raw_os_error() {
            Some(libc::ENOENT) => Kind::NotFound,
            Some(libc::EEXIST) => Kind::Exists,
            Some(libc::EACCES) => Kind::Denied,
            Some(libc::EPERM) => Kind::NotPermitted,
            Some(libc::ENOSPC) | Some(libc::EDQUOT) => Kind::NoSpace,
            Some(libc::EROFS) => Kind::ReadOnly,
            Some(libc::ENOTDIR) => Kind::NotDir,
            Some(libc::EISDIR) => Kind::IsDir,
            Some(libc::ENOTEMPTY) => Kind::NotEmpty,
            Some(libc::EFBIG) => Kind::TooBig,
            Some(libc::EINVAL) => Kind::Invalid,
            Some(libc::EBUSY) => Kind::Busy,
            Some(libc::EXDEV) => Kind::CrossDevice,
            Some(libc::ENAMETOOLONG) => Kind::NameTooLong,
            Some(libc::ENXIO) => Kind::BeyondEnd,
            _ => Kind::Io,
        };
        Error::new(kind, doing).source(e)
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The errno for a program on the mount.
    pub fn errno(&self) -> i32 {
        self.kind.errno()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        let mut next: Option<&(dyn std::error::Error + 'static)> = self.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static));
        while let Some(e) = next {
            write!(f, ": {e}")?;
            next = e.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}] {self}", self.kind)?;
        if let Some(h) = &self.hint {
            write!(f, " (hint: {h})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// `.doing("…")` on an `io::Result`.
pub trait IoContext<T> {
    /// Converts an I/O error, saying what was being done.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::io(what(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_carries_the_whole_chain() {
        let io = std::io::Error::from_raw_os_error(libc::ENOSPC);
        let e = Error::io("writing /x/y", io).context("saving plan.md");
        assert_eq!(e.kind(), Kind::NoSpace);
        assert!(e.to_string().starts_with("saving plan.md: writing /x/y: "), "{e}");
    }

    #[test]
    fn kind_names_are_snake_case() {
        assert_eq!(Kind::NotEnrolled.name(), "not_enrolled");
    }
}
