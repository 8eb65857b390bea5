//! `tcfs mcp`: the drive for assistants, by the Model Context Protocol on standard input and output.
//!
//! The tools are requests to the daemon and their answers, with schemas made from the types themselves; what a person reads
//! from `tcfs … --json` and what a tool returns are the same objects. Who may use the daemon's socket may use the tools: it
//! serves the same user and root.
//!
//! Must: nothing but protocol messages goes to standard output. Must: a tool that failed says so in its result, with what to
//! do; only a call that cannot be understood is a protocol error.
//! Not here: the protocol (the official SDK), the work (`daemon::service`).

mod answers;
mod resources;
mod tools;

use crate::daemon::client::Client;
use crate::daemon::protocol::{Item, Request, Response, WireError};
use crate::daemon::service::collect;
use crate::error::{Error, Kind, Result};
use rmcp::ServiceExt;
use rmcp::model::CallToolResult;
use serde::Serialize;
use std::path::PathBuf;

/// Serves until the client closes.
pub async fn run(socket: PathBuf) -> Result<()> {
    let failed = |e: String| Error::new(Kind::Io, format!("serving the Model Context Protocol: {e}"));
    let server = tools::Tools::new(socket).serve(rmcp::transport::stdio()).await.map_err(|e| failed(e.to_string()))?;
    server.waiting().await.map_err(|e| failed(e.to_string()))?;
    Ok(())
}

/// The daemon behind the tools.
#[derive(Clone, Debug)]
struct Drive {
    socket: PathBuf,
}

impl Drive {
    /// The items and the answer of one request.
    async fn ask(&self, request: Request) -> Result<(Vec<Item>, Response)> {
        let client = Client::connect(&self.socket).await?;
        collect(&client, request).await
    }
}

/// What a tool came to, for the client.
fn result<T: Serialize>(done: Result<T>) -> CallToolResult {
    #[derive(Serialize)]
    struct Failed {
        error: WireError,
    }
    match done {
        Ok(value) => match serde_json::to_value(value) {
            Ok(v) => CallToolResult::structured(v),
            Err(e) => CallToolResult::structured_error(serde_json::json!({"error": {"kind": "internal", "message": e.to_string()}})),
        },
        // Our own types into memory: it does not fail.
        Err(e) => CallToolResult::structured_error(serde_json::to_value(Failed { error: (&e).into() }).unwrap_or_default()),
    }
}

/// An answer of another kind than the request has.
fn unexpected(got: &Response) -> Error {
    crate::daemon::shell::unexpected("a request", got)
}
