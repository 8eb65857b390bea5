//! `tcfs status`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::protocol::{self, MountInfo, Request, Response};
use crate::error::Result;
use clap::Args;
use std::time::{SystemTime, UNIX_EPOCH};

/// Show what is mounted, pending and cached, and where everything lies
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs status
  tcfs status --json | jq .pending")]
pub struct Status {}

impl Status {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let drive = ctx.daemon().await?;
        let response = ctx.ask(drive, Request::Status, |_| {}).await?;
        ctx.out.object(&response);
        let Response::Status(s) = &response else { return Err(unexpected(&response)) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        for (label, text) in lines(ctx, s, now) {
            ctx.out.line(format!("{} {text}", ctx.out.bold(&format!("{label:<10}"))));
        }
        Ok(response.exit_code())
    }
}

fn lines(ctx: &Ctx, s: &protocol::Status, now: i64) -> Vec<(&'static str, String)> {
    let out = &ctx.out;
    let mut lines = vec![("daemon", format!("tcfs {}, process {}, for {}", s.version, s.pid, format::span(now - s.started_at)))];
    lines.push(match &s.device {
        Some(d) => {
            ("device", format!("{} ({}), {}", d.name, d.id, format::count(s.devices, "device in the fleet", "devices in the fleet")))
        }
        None => ("device", out.yellow("not enrolled")),
    });
    if s.mounts.is_empty() {
        lines.push(("mounted", "nowhere".to_owned()));
    }
    lines.extend(s.mounts.iter().map(|m| ("mounted", mount(m))));
    let reach = match (&s.store_state.last_error, s.store_state.reachable) {
        (_, true) => String::new(),
        (Some(e), false) => format!("  {}", out.red(&format!("does not answer: {e}"))),
        (None, false) => format!("  {}", out.red("does not answer")),
    };
    lines.push(("store", format!("{}{reach}", s.store)));
    lines.push(("pending", pending(s, now)));
    lines.push(("entries", format::count(s.entries, "entry", "entries")));
    let conflicts = format::count(s.conflicts, "entry", "entries");
    lines.push(("conflicts", if s.conflicts > 0 { out.yellow(&format!("{conflicts}; see `tcfs conflicts`")) } else { "none".to_owned() }));
    if s.held_back > 0 {
        let held = format::count(s.held_back, "delete waits", "deletes wait");
        lines.push(("brake", out.yellow(&format!("{held}; see `tcfs approve --list`"))));
    }
    let c = &s.cache;
    let kept = match (c.pinned_bytes, c.unpublished_bytes) {
        (0, 0) => String::new(),
        (p, u) => format!(" ({} pinned, {} unpublished)", format::size(p), format::size(u)),
    };
    lines.push(("cache", format!("{} of {}{kept} in {}", format::size(c.bytes), format::size(c.max_bytes), c.dir.display())));
    let why = s.nats.last_error.as_ref().or(s.nats.hub_error.as_ref()).map_or(String::new(), |e| format!(": {e}"));
    lines.push(("bus", format!("{}{}{why}", s.nats.state, s.nats.url.as_ref().map_or(String::new(), |u| format!(" {u}")))));
    lines.extend(s.warnings.iter().map(|w| ("warning", out.yellow(w))));
    lines.push(("state", s.state_dir.display().to_string()));
    lines.push(("log", s.log.display().to_string()));
    lines.push(("config", s.config_file.as_ref().map_or("none, all defaults".to_owned(), |f| f.display().to_string())));
    lines
}

fn mount(m: &MountInfo) -> String {
    let marks = [
        (m.command.is_some(), "served only"),
        (m.passthrough, "passthrough"),
        (m.read_only, "read only"),
        (m.allow_other, "for all users"),
    ];
    let marks: Vec<&str> = std::iter::once(m.backend.as_str()).chain(marks.iter().filter(|m| m.0).map(|m| m.1)).collect();
    format!("{} ({})", m.mountpoint.display(), marks.join(", "))
}

fn pending(s: &protocol::Status, now: i64) -> String {
    let mut text = match s.pending {
        0 => "nothing, all is in the store".to_owned(),
        n => format!("{}, {}", format::count(n, "change", "changes"), format::size(s.outbox.bytes)),
    };
    if let Some(t) = s.outbox.oldest_at.filter(|_| s.pending > 0) {
        text.push_str(&format!(", the oldest {} old", format::span(now - t)));
    }
    if let Some(e) = &s.outbox.last_error {
        let next = s.outbox.retry_at.map_or(String::new(), |t| format!("; next try in {}", format::span(t - now)));
        text.push_str(&format!(" ({e}{next})"));
    }
    if s.outbox.open_for_writing > 0 {
        text.push_str(&format!("; {} open for writing", format::count(s.outbox.open_for_writing, "file", "files")));
    }
    text
}
