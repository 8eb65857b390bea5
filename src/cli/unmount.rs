//! `tcfs unmount`.

use super::context::Ctx;
use super::format;
use crate::daemon::lifecycle;
use crate::daemon::protocol::Response;
use crate::error::{IoContext, Result};
use clap::Args;
use std::path::PathBuf;

/// Unmount the drive
///
/// Everything that was saved is kept; what is not in the store yet goes out with the next mount. The daemon that
/// `tcfs mount` started ends with its last mount.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs unmount ~/tcfs
  tcfs unmount                  every mount of this daemon
  tcfs unmount --force ~/tcfs   also while programs use it, or when the daemon hangs")]
pub struct Unmount {
    /// Where it is mounted [default: every mount of this daemon]
    mountpoint: Option<PathBuf>,
    /// Also while programs use it: they get errors. Does not wait for anybody
    #[arg(short, long)]
    force: bool,
}

impl Unmount {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let at = self.mountpoint.as_ref().map(|m| ctx.local(m));
        // Whoever calls it from inside the drive works there; this program must not be one more who does.
        std::env::set_current_dir("/").doing(|| "changing to /")?;
        let done = ctx.with_progress(async |p| lifecycle::unmount(&ctx.config, at, self.force, p).await).await?;
        ctx.out.object(&Response::Unmounted(done.clone()));
        if done.mountpoints.is_empty() {
            ctx.out.line("nothing was mounted");
        }
        for m in &done.mountpoints {
            ctx.out.line(format!("{} is unmounted", m.display()));
        }
        if done.pending > 0 {
            let n = format::count(done.pending, "change is", "changes are");
            ctx.out.line(format!("{n} not in the store yet; kept here, they go out with the next mount"));
        }
        Ok(0)
    }
}
