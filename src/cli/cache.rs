//! `tcfs cache`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{CacheList, Item, Request, Response};
use crate::error::Result;
use clap::Args;

/// Show how much of the drive is kept here, and what takes the space
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs cache
  tcfs cache --top
  tcfs cache --top 100
  tcfs unsync big.iso      lets the bytes of a file go; they come again when it is read

The cache stays under cache.max_bytes, and leaves cache.min_free on its disk: the files that were
not used for longest go first. What is pinned, open or not in the store yet never goes by itself.")]
pub struct Cache {
    /// List the N largest files
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20")]
    top: Option<u64>,
}

impl Cache {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.own_drive().await?;
        let response = ctx
            .ask(drive, Request::CacheList(CacheList { top: self.top.unwrap_or(0) }), |i| {
                if let Item::Cached(c) = i {
                    let used = if c.used_at > 0 { ctx.out.time(c.used_at) } else { String::new() };
                    let part = if c.here < c.size { format!(" of {}", format::size(c.size)) } else { String::new() };
                    let pin = if c.pinned { ctx.out.yellow(" [pinned]") } else { String::new() };
                    ctx.out.line(format!("{:>9}{part} {used:<19} {}{pin}", format::size(c.here), ctx.out.name(&c.path)));
                }
            })
            .await?;
        ctx.out.object(&response);
        let Response::Cache(c) = &response else { return Err(unexpected(&response)) };
        let of = |n: u64, max: u64| format!("{} of {}", format::size(n), format::size(max));
        let files = format::count(c.cache.hydrated_files, "file", "files");
        ctx.out.line(format!("cache      {} in {files}", of(c.cache.bytes, c.cache.max_bytes)));
        ctx.out.line(format!("pinned     {}", format::size(c.cache.pinned_bytes)));
        ctx.out.line(format!("not sent   {}", format::size(c.cache.unpublished_bytes)));
        let free = format!("{} free, shrinks below {}", of(c.disk_free, c.disk), format::size(c.min_free.min(c.disk / 10)));
        ctx.out.line(format!("disk       {free}"));
        ctx.out.line(format!("directory  {}", c.cache.dir.display()));
        Ok(response.exit_code())
    }
}
