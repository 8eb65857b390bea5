//! `tcfs report`.
//!
//! Must: no name of a file, machine, user or server, no address and no secret is in it. What cannot be told apart from one is
//! left out.

use super::context::Ctx;
use super::format;
use super::printed::Printed;
use crate::daemon::client::Client;
use crate::daemon::doctor::{self, System};
use crate::daemon::protocol::{Device, Item, Request, Response, ToldFile};
use crate::error::{IoContext, Result};
use clap::Args;
use std::fmt::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Write what a bug report needs into a file, without names and secrets
///
/// Version, system, configuration, state, checks, counters and the end of the log. Names of files, machines, users and servers,
/// addresses and secrets are taken out; read it before you pass it on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs report
  tcfs report --output /tmp/report.txt")]
pub struct Report {
    /// File to write
    #[arg(long, value_name = "FILE", default_value = "tcfs-report.txt")]
    output: PathBuf,
}

impl Report {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        let mut hide = Hide::of_process();
        let mut text = String::new();
        let mut part = |title: &str, body: &str| {
            let _ = write!(text, "== {title}\n{}\n\n", body.trim_end());
        };
        let system = rustix::system::uname();
        let lossy = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("").trim_matches('"').to_owned();
        part(
            "program",
            &format!(
                "tcfs {}\n{} {} {}\n{name}",
                env!("CARGO_PKG_VERSION"),
                lossy(system.sysname()),
                lossy(system.release()),
                lossy(system.machine())
            ),
        );
        let told = Facts::ask(ctx, &mut hide).await;
        let settings: Vec<String> = ctx.config.show().iter().filter_map(|s| setting(&s.key, &s.value, &s.source)).collect();
        part("configuration (what differs from the defaults)", &hide.line(&settings.join("\n")));
        match told {
            Ok(t) => {
                part("state", &hide.line(&t.status));
                part("checks", &hide.text(&t.checks));
                part("counters", &hide.line(&t.metrics));
                part("log", &hide.text(&t.log));
            }
            Err(e) => part("state", &hide.text(&format!("no daemon could be asked: {e}"))),
        }
        let env = std::env::var("PATH").map(|p| [("PATH".to_owned(), p)].into()).unwrap_or_default();
        let checks = doctor::system(&System::here(&env));
        let lines: Vec<String> = checks.iter().map(|c| format!("{:?} {}: {}", c.verdict, c.name, c.detail)).collect();
        part("this system", &hide.text(&lines.join("\n")));
        let file = ctx.local(&self.output);
        let doing = || format!("writing {}", file.display());
        let mut to = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file).doing(doing)?;
        std::io::Write::write_all(&mut to, text.as_bytes()).doing(doing)?;
        ctx.out.object(&Printed::Reported { file: file.clone(), bytes: text.len() as u64 });
        ctx.out.line(format!("{} ({})", file.display(), format::size(text.len() as u64)));
        ctx.out.line("names and secrets are taken out; read it before you pass it on");
        Ok(0)
    }
}

/// A setting that is not the default; where it may name something, only that it is set.
fn setting(key: &str, value: &str, source: &str) -> Option<String> {
    if source == "default" {
        return None;
    }
    let tells = value.parse::<f64>().is_ok() || ["true", "false"].contains(&value);
    let word = [
        "conflict_mode",
        "git_sync_mode",
        "write_mode",
        "poll_interval",
        "log.level",
        "cache.max_bytes",
        "cache.min_free",
        "cache.hydrate_whole_below",
        "log.max_bytes",
    ];
    let shown = if tells || word.contains(&key) { value } else { "(set)" };
    Some(format!("{key} = {shown}"))
}

/// What the daemon says.
struct Facts {
    status: String,
    checks: String,
    metrics: String,
    log: String,
}

impl Facts {
    async fn ask(ctx: &Ctx, hide: &mut Hide) -> Result<Facts> {
        Client::connect(&ctx.config.socket()).await?;
        let told = async |name: &str| -> Result<String> {
            let drive = ctx.daemon().await?;
            match ctx.ask_quietly(drive, Request::Told(ToldFile { name: name.to_owned() })).await?.1 {
                Response::Told(t) => Ok(t.text),
                other => Err(super::context::unexpected(&other)),
            }
        };
        let devices: Vec<Device> = serde_json::from_str(&told("devices.json").await?).unwrap_or_default();
        for (i, d) in devices.iter().enumerate() {
            hide.name(&d.id, &format!("device-{}-id", i + 1));
            hide.name(&d.name, &format!("device-{}", i + 1));
        }
        let mut status: serde_json::Value = serde_json::from_str(&told("status.json").await?).unwrap_or_default();
        if let Some(s) = status.as_object_mut() {
            // Places and addresses, all of them.
            for field in ["store", "state_dir", "log", "socket", "config_file", "device", "warnings"] {
                s.remove(field);
            }
            for (table, field) in [("nats", "url"), ("cache", "dir"), ("outbox", "current"), ("store_state", "id")] {
                if let Some(t) = s.get_mut(table).and_then(|t| t.as_object_mut()) {
                    t.remove(field);
                }
            }
            for (table, field) in [("nats", "last_error"), ("nats", "hub_error"), ("outbox", "last_error"), ("store_state", "last_error")] {
                if let Some(e) = s.get_mut(table).and_then(|t| t.get_mut(field))
                    && let Some(text) = e.as_str()
                {
                    *e = hide.text(text).into();
                }
            }
            for m in s.get_mut("mounts").and_then(|m| m.as_array_mut()).into_iter().flatten() {
                if let Some(m) = m.as_object_mut() {
                    m.remove("mountpoint");
                    m.remove("command");
                }
            }
        }
        let drive = ctx.daemon().await?;
        let (items, _) = ctx.ask_quietly(drive, Request::Doctor).await?;
        let check = |i: Item| if let Item::Check(c) = i { Some(format!("{:?} {}: {}", c.verdict, c.name, c.detail)) } else { None };
        Ok(Facts {
            status: serde_json::to_string_pretty(&status).unwrap_or_default(),
            checks: items.into_iter().filter_map(check).collect::<Vec<_>>().join("\n"),
            metrics: told("metrics").await?.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n"),
            log: told("log").await?,
        })
    }
}

/// Takes names out.
struct Hide {
    names: Vec<(String, String)>,
}

impl Hide {
    fn of_process() -> Hide {
        let mut h = Hide { names: Vec::new() };
        for (var, with) in [("HOME", "~"), ("USER", "user"), ("LOGNAME", "user")] {
            if let Ok(v) = std::env::var(var) {
                h.name(&v, with);
            }
        }
        h.name(&rustix::system::uname().nodename().to_string_lossy(), "host");
        h
    }

    fn name(&mut self, name: &str, with: &str) {
        // A name of a letter or two would take every word apart.
        if name.len() > 2 && !["root", "tcfs"].contains(&name) {
            self.names.push((name.to_owned(), with.to_owned()));
            self.names.sort_by_key(|(n, _)| std::cmp::Reverse(n.len()));
        }
    }

    /// Known names out.
    fn line(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |t, (name, with)| t.replace(name, with))
    }

    /// Known names, everything in quotes, and every word that may be a path or an address.
    fn text(&self, text: &str) -> String {
        let mut out = String::new();
        for line in self.line(text).lines() {
            let mut quoted = false;
            let mut kept = String::new();
            for c in line.chars() {
                match (c, quoted) {
                    ('"', false) => {
                        kept.push_str("\"…");
                        quoted = true;
                    }
                    ('"', true) => {
                        kept.push('"');
                        quoted = false;
                    }
                    (_, true) => {}
                    (c, false) => kept.push(c),
                }
            }
            let words: Vec<&str> = kept.split(' ').map(|w| if is_name(w) { "<name>" } else { w }).collect();
            out.push_str(&words.join(" "));
            out.push('\n');
        }
        out
    }
}

/// Whether a word may be a path, a file, an address or a link.
fn is_name(word: &str) -> bool {
    let w = word.trim_matches(|c: char| ",;:()[]".contains(c));
    let time = w.len() > 18 && w.as_bytes().get(4) == Some(&b'-') && w.contains('T');
    let number = w.chars().all(|c| c.is_ascii_digit() || ".,%-+".contains(c));
    if time || number || w.starts_with("tcfs::") || w == "e.g." {
        return false;
    }
    let value = w.split_once('=').map_or(w, |(_, v)| v);
    let number = value.chars().all(|c| c.is_ascii_digit() || ".,%-+".contains(c));
    !number && (value.contains('/') || value.trim_end_matches('.').contains('.') || value.contains('@') || value.matches(':').count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_what_is_quoted_are_taken_out_and_facts_stay() {
        let mut h = Hide { names: Vec::new() };
        h.name("yoga-1a2b3c4d", "device-1-id");
        h.name("/home/ann", "~");
        let text = "2026-02-13T18:04:05.123Z  WARN tcfs::fleet: \"my plan\" in /home/ann/x.md by yoga-1a2b3c4d at s3.example.org:8333, 12.5 % of 10.0.0.1, path=notes/a b n=5";
        let shown = h.text(text);
        for gone in ["my plan", "x.md", "yoga", "example", "notes"] {
            assert!(!shown.contains(gone), "{gone} in {shown}");
        }
        for kept in ["2026-02-13T18:04:05.123Z", "WARN", "tcfs::fleet:", "device-1-id", "12.5 %", "n=5"] {
            assert!(shown.contains(kept), "{kept} not in {shown}");
        }
        assert_eq!(setting("store", "\"s3://b/p\"", "file:1").unwrap(), "store = (set)");
        assert_eq!(setting("log.level", "\"debug\"", "file:1").unwrap(), "log.level = \"debug\"");
        assert_eq!(setting("gc.enabled", "true", "default"), None);
    }
}
