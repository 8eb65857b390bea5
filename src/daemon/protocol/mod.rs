//! What goes over the daemon's socket: one JSON object per line, in both directions.
//!
//! The daemon speaks first:  `{"hello":{"protocol":1,"version":"0.1.0","pid":4711}}`
//! A client then sends       `{"request":{"op":"ls","path":"notes","recursive":false}}`
//! and gets any number of    `{"progress":{…}}` and `{"item":{…}}`,
//! and exactly one           `{"result":{"type":"listed",…}}` or `{"error":{"kind":"not_found","message":"…","hint":"…"}}`.
//!
//! Must: requests of one connection are answered in their order, one at a time; whoever wants two at once opens two
//! connections. Must: a field is only ever added, with `#[serde(default)]`; what would change a meaning raises
//! [`PROTOCOL`]. The structs of [`response`] are also what `--json` prints.
//! Not here: the socket itself (`daemon::socket`, `daemon::client`), the work (`daemon::service::Service`).

pub mod activity;
pub mod adopt;
pub mod diff;
pub mod git;
pub mod ignore;
pub mod look;
pub mod request;
pub mod response;
pub mod wire;

pub use self::ignore::*;
pub use activity::*;
pub use adopt::*;
pub use diff::*;
pub use git::*;
pub use look::*;
pub use request::*;
pub use response::*;
pub use wire::{FromClient, FromDaemon, Hello, WireError};

/// Version of this protocol. A client that speaks another one is told so and nothing else.
pub const PROTOCOL: u32 = 1;
