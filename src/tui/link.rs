//! The way to the daemon: asks it now and then, follows what happens, does what the person wishes. Survives its restarts.
//!
//! Must: a daemon that hangs or goes away never holds the screen up.

use super::state::{News, Wish};
use crate::daemon::client::Client;
use crate::daemon::protocol::{ConflictDiff, Item, Keep, ListConflicts, Request, ResolveConflict, Response};
use crate::daemon::service::{Progress, Service, Update, collect};
use crate::error::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc};

/// How often the daemon is asked how it is.
const ASK: Duration = Duration::from_secs(1);
/// Every so many times also for the fleet.
const FLEET: u64 = 10;
/// Between two attempts to find a daemon.
const AGAIN: Duration = Duration::from_millis(500);
/// Items under way.
const ITEMS: usize = 256;

/// Asks and follows until the screen is gone.
pub async fn run(socket: PathBuf, tell: mpsc::Sender<News>, mut wishes: mpsc::Receiver<Wish>) {
    let changed = Arc::new(Notify::new());
    let watch = tokio::spawn(follow(socket.clone(), tell.clone(), changed.clone()));
    let doing = {
        let (socket, tell, changed) = (socket.clone(), tell.clone(), changed.clone());
        tokio::spawn(async move {
            while let Some(wish) = wishes.recv().await {
                if tell.send(fulfil(&socket, wish).await).await.is_err() {
                    return;
                }
                changed.notify_one();
            }
        })
    };
    let mut round = 0;
    loop {
        let told = match ask(&socket, round, &tell).await {
            Ok(()) => News::Link(Ok(())),
            Err(e) => News::Link(Err(e.to_string())),
        };
        if tell.send(told).await.is_err() {
            break;
        }
        round += 1;
        let _ = tokio::time::timeout(ASK, changed.notified()).await;
    }
    watch.abort();
    doing.abort();
}

async fn ask(socket: &Path, round: u64, tell: &mpsc::Sender<News>) -> Result<()> {
    let client = Client::connect(socket).await?;
    let mut news = Vec::new();
    if let (_, Response::Status(s)) = collect(&client, Request::Status).await? {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        news.push(News::Status(Box::new(s), now));
    }
    let (items, _) = collect(&client, Request::Conflicts(ListConflicts::default())).await?;
    news.push(News::Conflicts(items.into_iter().filter_map(|i| if let Item::Conflict(c) = i { Some(c) } else { None }).collect()));
    let (items, _) = collect(&client, Request::Pending).await?;
    news.push(News::Pending(items.into_iter().filter_map(|i| if let Item::Pending(p) = i { Some(p) } else { None }).collect()));
    for n in news {
        // Nobody looks any more: the caller notices.
        let _ = tell.send(n).await;
    }
    if round.is_multiple_of(FLEET) {
        // It may take as long as the store does.
        let (socket, tell) = (socket.to_owned(), tell.clone());
        tokio::spawn(async move {
            let Ok(client) = Client::connect(&socket).await else { return };
            if let Ok((items, _)) = collect(&client, Request::DeviceList).await {
                let devices = items.into_iter().filter_map(|i| if let Item::Device(d) = i { Some(d) } else { None }).collect();
                let _ = tell.send(News::Devices(devices)).await;
            }
        });
    }
    Ok(())
}

/// Hands on what happens; `changed` rings when that concerns what is asked for otherwise.
async fn follow(socket: PathBuf, tell: mpsc::Sender<News>, changed: Arc<Notify>) {
    loop {
        if let Ok(client) = Client::connect(&socket).await {
            let (progress, mut updates) = Progress::channel(ITEMS);
            let call = client.call(Request::Follow, &progress);
            tokio::pin!(call);
            loop {
                tokio::select! {
                    biased;
                    Some(u) = updates.recv() => if let Update::Item(Item::Activity(a)) = u {
                        if tell.send(News::Happened(a)).await.is_err() {
                            return;
                        }
                        changed.notify_one();
                    },
                    _ = &mut call => break,
                }
            }
        }
        if tell.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn fulfil(socket: &Path, wish: Wish) -> News {
    match wish {
        Wish::Diff(path) => {
            let request = Request::ConflictDiff(ConflictDiff { path, with: None });
            match once(socket, request).await {
                Ok(Response::Diff(d)) => News::Diff(Ok(Box::new(d))),
                Ok(_) => News::Diff(Err("the daemon answered something else".to_owned())),
                Err(e) => News::Diff(Err(said(&e))),
            }
        }
        Wish::Resolve(r) => {
            let (path, keep) = (r.path.clone(), r.keep.clone());
            let request = Request::ResolveConflict(ResolveConflict { path: format!("/{}", r.path), keep: r.keep });
            match once(socket, request).await {
                Ok(Response::Resolved(_)) => News::Resolved(Ok(match keep {
                    Keep::Local => format!("{path}: this machine's version stays; the others are in its history"),
                    Keep::Remote => format!("{path}: the other version stays; this machine's is in its history"),
                    Keep::Both => format!("{path}: both stay, as files of their own"),
                    Keep::Device(d) => format!("{path}: the version of {d} stays"),
                })),
                Ok(_) => News::Resolved(Err("the daemon answered something else".to_owned())),
                Err(e) => News::Resolved(Err(said(&e))),
            }
        }
        Wish::Quit => News::Resolved(Ok(String::new())),
    }
}

fn said(e: &crate::error::Error) -> String {
    e.hint_text().map_or_else(|| e.to_string(), |h| format!("{e}: {h}"))
}

async fn once(socket: &Path, request: Request) -> Result<Response> {
    Client::connect(socket).await?.call(request, &Progress::none()).await
}
