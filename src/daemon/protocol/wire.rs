//! The frames around requests and answers, and errors as they travel.

use super::{Item, PROTOCOL, ProgressLine, Request, Response};
use crate::error::{Error, Kind};
use serde::{Deserialize, Serialize};

/// First line of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the daemon.
    pub protocol: u32,
    /// Its program version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

impl Hello {
    /// The greeting of this process.
    pub fn here() -> Hello {
        Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
    }

    /// Refuses a daemon that speaks another protocol, saying what to do.
    pub fn check(&self) -> crate::Result<()> {
        if self.protocol == PROTOCOL {
            return Ok(());
        }
        Err(Error::new(
            Kind::Unsupported,
            format!(
                "the running daemon (process {}, version {}) speaks protocol {}, this program ({}) speaks {PROTOCOL}",
                self.pid,
                self.version,
                self.protocol,
                env!("CARGO_PKG_VERSION")
            ),
        )
        .hint(format!("kill {} stops it gracefully; the next `tcfs mount` starts the installed version", self.pid)))
    }
}

/// A line from a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromClient {
    /// Do this.
    Request(Request),
}

/// A line from the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDaemon {
    /// The greeting, once.
    Hello(Hello),
    /// How far a long request is; may be dropped or thinned out at will.
    Progress(ProgressLine),
    /// One element of a long list; never dropped.
    Item(Item),
    /// The end: done.
    Result(Box<Response>),
    /// The end: not done.
    Error(WireError),
}

/// An error on the wire and in `--json`: `{"error":{"kind":…,"message":…,"hint":…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WireError {
    /// Stable snake-case name of the kind (`not_found`, `unavailable`, …).
    pub kind: String,
    /// What failed, on which path, why.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Error> for WireError {
    fn from(e: &Error) -> WireError {
        WireError { kind: e.kind().name(), message: e.to_string(), hint: e.hint_text().map(str::to_owned) }
    }
}

impl From<WireError> for Error {
    fn from(w: WireError) -> Error {
        let e = Error::new(kind_named(&w.kind).unwrap_or(Kind::Internal), w.message);
        match w.hint {
            Some(h) => e.hint(h),
            None => e,
        }
    }
}

macro_rules! kinds {
    ($($k:ident),* $(,)?) => {
        const KINDS: &[Kind] = &[$(Kind::$k),*];
        // Makes the compiler name a kind that the list above forgot.
        const fn _all(k: Kind) {
            match k { $(Kind::$k => ()),* }
        }
    };
}
kinds!(
    NotFound,
    Exists,
    IsDir,
    NotDir,
    NotEmpty,
    BadName,
    NameTooLong,
    NotUtf8,
    Invalid,
    Denied,
    NotPermitted,
    ReadOnly,
    NoSpace,
    TooBig,
    CrossDevice,
    Stale,
    NoAttr,
    Range,
    Busy,
    Unsupported,
    TooManyLinks,
    BeyondEnd,
    Unavailable,
    Timeout,
    Interrupted,
    Corrupt,
    Unauthorized,
    Usage,
    NoDaemon,
    Locked,
    NotEnrolled,
    Partial,
    Io,
    Internal,
);

/// The kind with this stable name.
pub fn kind_named(name: &str) -> Option<Kind> {
    KINDS.iter().copied().find(|k| k.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_kind_survives_the_wire_with_its_exit_code() {
        for k in KINDS {
            let e = Error::new(*k, "doing x").hint("try y");
            let json = serde_json::to_string(&FromDaemon::Error(WireError::from(&e))).unwrap();
            let Ok(FromDaemon::Error(w)) = serde_json::from_str(&json) else { panic!("{json}") };
            let back = Error::from(w);
            assert_eq!((back.kind(), back.to_string().as_str(), back.hint_text()), (*k, "doing x", Some("try y")));
        }
    }

    #[test]
    fn frames_look_as_documented() {
        let json = serde_json::to_value(FromDaemon::Hello(Hello { protocol: 1, version: "0.1.0".into(), pid: 7 })).unwrap();
        assert_eq!(json, serde_json::json!({"hello": {"protocol": 1, "version": "0.1.0", "pid": 7}}));
        let req: FromClient = serde_json::from_str(r#"{"request":{"op":"ls","path":"notes"}}"#).unwrap();
        assert_eq!(req, FromClient::Request(Request::Ls(super::super::Ls { path: "notes".into(), recursive: false, all: false })));
        let req: FromClient = serde_json::from_str(r#"{"request":{"op":"status"}}"#).unwrap();
        assert_eq!(req, FromClient::Request(Request::Status));
    }

    #[test]
    fn a_daemon_of_another_protocol_is_named() {
        let e = Hello { protocol: 2, version: "9".into(), pid: 7 }.check().unwrap_err();
        assert!(e.to_string().contains("protocol 2") && e.hint_text().unwrap().contains("kill 7"), "{e:?}");
    }
}
