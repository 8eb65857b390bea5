//! `tcfs device`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{DeviceEnroll, DeviceRename, DeviceRevoke, Enrolled, Item, Request, Response};
use crate::error::Result;
use clap::{Args, Subcommand};
use std::time::{SystemTime, UNIX_EPOCH};

/// Enrol this machine; list, rename and revoke devices of the fleet
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs device enroll --name yoga
  tcfs device list
  tcfs device revoke old-laptop")]
pub struct Device {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Give this machine an identity (`tcfs mount` does it by itself)
    Enroll {
        /// Name: 1 to 32 lower-case letters, digits and `-` [default: device_name of the configuration, else the host name]
        #[arg(long)]
        name: Option<String>,
        /// Revoke the device that has the name and take it
        #[arg(long)]
        replace: bool,
    },
    /// List the devices of the fleet, after asking the store
    List,
    /// Rename this machine
    Rename {
        /// New name
        name: String,
    },
    /// Shut a device out: what it writes from now on does not count
    Revoke {
        /// Name or id
        #[arg(add = super::completions::device())]
        device: String,
    },
}

impl Device {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let renamed = matches!(self.what, What::Rename { .. });
        let request = match self.what {
            What::Enroll { name, replace } => Request::DeviceEnroll(DeviceEnroll { name, replace }),
            What::Rename { name } => Request::DeviceRename(DeviceRename { name }),
            What::Revoke { device } => Request::DeviceRevoke(DeviceRevoke { device }),
            What::List => return list(ctx).await,
        };
        let drive = if matches!(request, Request::DeviceEnroll(_)) { ctx.drive().await? } else { ctx.own_drive().await? };
        let response = ctx.ask(drive, request, |_| {}).await?;
        ctx.out.object(&response);
        match &response {
            Response::Enrolled(e) => enrolled(ctx, e, renamed),
            Response::Revoked(r) => ctx.out.line(format!("{} ({}) is revoked", r.device.name, r.device.id)),
            other => return Err(unexpected(other)),
        }
        Ok(response.exit_code())
    }
}

fn enrolled(ctx: &Ctx, e: &Enrolled, renamed: bool) {
    let how = match (renamed, e.already) {
        (true, _) => " now",
        (false, true) => " already",
        (false, false) => "",
    };
    ctx.out.line(format!("this machine is{how} {} ({})", e.device.name, e.device.id));
    if let Some(r) = &e.replaced {
        ctx.out.line(format!("{} is revoked", r.id));
    }
    for n in &e.notes {
        ctx.out.line(format!("note: {n}"));
    }
}

async fn list(ctx: &Ctx) -> Result<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let response = ctx
        .ask(ctx.drive().await?, Request::DeviceList, |i| {
            if let Item::Device(d) = i {
                let seen = d.last_seen_at.map_or("never seen".to_owned(), |t| format!("seen {} ago", format::span(now - t)));
                let online = d.online.filter(|_| !d.this);
                let marks = [
                    (d.this, "this machine"),
                    (online == Some(true), "online"),
                    (online == Some(false), "offline"),
                    (d.revoked, "revoked"),
                ];
                let marks: Vec<&str> = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
                let line = format!("{:<20} {:<32} {seen:<16} {}", ctx.out.bold(&format!("{:<20}", d.name)), d.id, marks.join(", "));
                ctx.out.line(line.trim_end());
            }
        })
        .await?;
    ctx.out.object(&response);
    let Response::Devices(d) = &response else { return Err(unexpected(&response)) };
    if d.offline {
        ctx.out.note("the store does not answer; this is what is known here");
    }
    Ok(response.exit_code())
}
