//! `tcfs hydrate`.

use super::context::{Ctx, unexpected};
use super::format;
use super::push::skipped;
use crate::daemon::protocol::{OnPath, Request, Response};
use crate::error::Result;
use clap::Args;

/// Bring the bytes of files here, for work without a network
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs hydrate project     and everything below
  tcfs pin project         the same, and it stays")]
pub struct Hydrate {
    /// PATH in the drive; directories with everything below
    #[arg(required = true, value_name = "PATH", add = super::completions::path())]
    paths: Vec<String>,
}

impl Hydrate {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        on_each(ctx, &self.paths, Request::Hydrate, |r| {
            let Response::Hydrated(h) = r else { return Err(unexpected(r)) };
            let files = format::count(h.files, "file is here", "files are here");
            ctx.out.line(format!("{}: {files} ({}), {} fetched", h.path, format::size(h.bytes), format::size(h.fetched)));
            skipped(ctx, &h.skipped);
            Ok(())
        })
        .await
    }
}

/// Does the same request on each path, one after the other; ends with the first error.
pub async fn on_each(ctx: &Ctx, paths: &[String], request: fn(OnPath) -> Request, show: impl Fn(&Response) -> Result<()>) -> Result<u8> {
    let drive = ctx.own_drive().await?;
    let work = async {
        let mut code = 0;
        for typed in paths {
            let path = ctx.path(&drive, typed)?;
            let response = ctx.call(&drive, request(OnPath { path }), |_| {}).await?;
            ctx.out.object(&response);
            show(&response)?;
            code = code.max(response.exit_code());
        }
        Ok(code)
    };
    let result = work.await;
    drive.close().await;
    result
}
