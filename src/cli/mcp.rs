//! `tcfs mcp`.

use super::context::Ctx;
use crate::error::Result;
use clap::Args;

/// Serve the drive to an assistant, by the Model Context Protocol on standard input and output
///
/// Tools for status, listing, history, conflicts, pins and copies, and the control files as resources. It talks to the running
/// daemon of this user; who may use its socket may use these tools.
#[derive(Args)]
#[command(after_help = "\
Example, for a program that starts servers by a JSON configuration:
  {\"mcpServers\": {\"tcfs\": {\"command\": \"tcfs\", \"args\": [\"mcp\"]}}}")]
pub struct Mcp {}

impl Mcp {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        crate::mcp::run(ctx.config.socket()).await?;
        Ok(0)
    }
}
