//! `tcfs store`.

use super::context::{Ctx, unexpected};
use super::format;
use crate::daemon::config::value::Base;
use crate::daemon::config::{Origin, parse_store};
use crate::daemon::protocol::{Request, Response, StoreMove, StoreMoved};
use crate::error::{Error, Kind, Result};
use clap::{Args, Subcommand};

/// Show the store, copy it, or move everything to another one
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs store show
  tcfs store copy file:///backup/tcfs
  tcfs store move s3://tcfs/default")]
pub struct Store {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Where the store is and which one
    Show,
    /// Copy everything to another place, as a backup; again: only what is new
    ///
    /// Every object is read back and compared. Nothing is removed there, so what was deleted meanwhile stays. A fleet
    /// can go on with a copy; what to do when it is older than what the machines have is told in the README.
    Copy {
        /// file:///DIR or s3://BUCKET/PREFIX
        url: String,
    },
    /// Copy everything to another store and switch this machine to it
    ///
    /// Every object is read back and compared. Machines that go on with the old place do not see what this one writes:
    /// set `store` on each of them.
    Move {
        /// file:///DIR or s3://BUCKET/PREFIX
        url: String,
    },
}

impl Store {
    pub async fn run(self, ctx: &Ctx) -> Result<u8> {
        match self.what {
            What::Show => show(ctx).await,
            What::Copy { url } => copy_to(ctx, &url).await,
            What::Move { url } => move_to(ctx, &url).await,
        }
    }
}

async fn show(ctx: &Ctx) -> Result<u8> {
    let response = ctx.ask(ctx.drive().await?, Request::StoreShow, |_| {}).await?;
    ctx.out.object(&response);
    let Response::Store(s) = &response else { return Err(unexpected(&response)) };
    ctx.out.line(format!("{}{}", s.url, if s.reachable { "" } else { " (does not answer)" }));
    if let Some(id) = &s.id {
        let since = s.created_at.map_or(String::new(), |t| format!(", created {}", ctx.out.time(t)));
        ctx.out.line(format!("id {id}, format {}{since}", s.format.unwrap_or_default()));
    }
    Ok(response.exit_code())
}

/// The place that is meant.
fn place(ctx: &Ctx, url: &str) -> Result<StoreMove> {
    let base = Base { home: std::env::var_os("HOME").map(Into::into), dir: ctx.local(std::path::Path::new("")) };
    Ok(StoreMove { url: parse_store(url, &base).map_err(|why| Error::new(Kind::Usage, why))?.to_string() })
}

fn tell(ctx: &Ctx, m: &StoreMoved) {
    let objects = format::count(m.objects, "object", "objects");
    ctx.out.line(format!("{} -> {}: {objects} copied ({}), {} there already", m.from, m.to, format::size(m.bytes), m.present));
}

async fn copy_to(ctx: &Ctx, url: &str) -> Result<u8> {
    let response = ctx.ask(ctx.own_drive().await?, Request::StoreCopy(place(ctx, url)?), |_| {}).await?;
    ctx.out.object(&response);
    let Response::StoreCopied(m) = &response else { return Err(unexpected(&response)) };
    tell(ctx, m);
    Ok(response.exit_code())
}

async fn move_to(ctx: &Ctx, url: &str) -> Result<u8> {
    let response = ctx.ask(ctx.own_drive().await?, Request::StoreMove(place(ctx, url)?), |_| {}).await?;
    ctx.out.object(&response);
    let Response::StoreMoved(m) = &response else { return Err(unexpected(&response)) };
    tell(ctx, m);
    let where_set = match ctx.config.origin("store") {
        Origin::File(line) => {
            format!("line {line} of {}", ctx.config.file.as_ref().map_or("the config file".into(), |f| f.display().to_string()))
        }
        Origin::Env(name) => format!("the environment variable {name}"),
        Origin::Flag(name) => format!("the flag {name}"),
        Origin::Default | Origin::Ambient(_) => "the config file".to_owned(),
    };
    ctx.out.line(format!("from now on {where_set} must say: store = \"{}\"", m.to));
    Ok(response.exit_code())
}
