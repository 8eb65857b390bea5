//! Fault-injecting decorator: errors, delays, wrong and truncated bytes, lost acknowledgements, operations held back
//! until they are let go. For tests in the process, and for the real binary under test.
//!
//! The binary takes its faults from the file that `TCFS_FAULT` names, read again whenever it changes (no file, or an
//! empty one: no faults). A testing aid, of no use in production. It holds one rule or a list of them:
//!
//! ```json
//! [{"mode": "down", "only": "list"},
//!  {"mode": {"slow_ms": 300}, "only": "get", "prefix": "default/chunks/"},
//!  {"mode": "lost_ack", "only": "put", "chance": 0.1, "times": 5}]
//! ```
//!
//! The first rule that fits an operation decides; delays and holds come before it and add up.

use super::count::Op;
use super::{ObjectMeta, Page, PutMode, PutOutcome, Store, StoreRef};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No connection: `Unavailable` at once.
    Down,
    /// The server answers 500: `Unavailable`.
    Status500,
    /// No answer within the deadline: `Timeout` at once, nothing done.
    Timeout,
    /// Never answers; the caller's own deadline must save it.
    Hang,
    /// Credentials refused.
    Unauthorized,
    /// The store's disk is full (puts only).
    NoSpace,
    /// Answers as if there were no object (get, head) or nothing (list): a replica that lags.
    Missing,
    /// Waits so many milliseconds, then goes on.
    SlowMs(u64),
    /// A get loses the second half of its bytes.
    Truncate,
    /// A get has one bit flipped in the middle.
    Garble,
    /// The operation is done, but the answer is `Timeout`.
    LostAck,
    /// A put overwrites although it was to write only if absent: a server without conditional puts.
    IgnoreIfAbsent,
}

/// One fault and when it strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What goes wrong.
    pub mode: Mode,
    /// Only this operation; none: all.
    #[serde(default)]
    pub only: Option<Op>,
    /// Only keys (or list prefixes) that start with this.
    #[serde(default)]
    pub prefix: String,
    /// How often, 0 to 1.
    #[serde(default = "always")]
    pub chance: f64,
    /// At most so many times; none: no limit.
    #[serde(default)]
    pub times: Option<u64>,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// Always, everywhere.
    pub fn new(mode: Mode) -> Self {
        Rule { mode, only: None, prefix: String::new(), chance: 1.0, times: None }
    }
    /// Only one operation.
    pub fn only(mut self, op: Op) -> Self {
        self.only = Some(op);
        self
    }
    /// Only below a prefix.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }
    /// With a probability.
    pub fn chance(mut self, p: f64) -> Self {
        self.chance = p;
        self
    }
    /// At most `n` times.
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    fn fits(&self, op: Op, key: &str) -> bool {
        self.only.is_none_or(|o| o == op) && key.starts_with(&self.prefix) && self.times != Some(0)
    }
}

/// Operations on matching keys wait while this lives.
pub struct Hold {
    prefix: String,
    only: Option<Op>,
    /// How many have come to wait here.
    arrived: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Hold {
    /// Waits until `n` operations have come to this hold.
    pub async fn reached(&self, n: usize) {
        let mut seen = self.arrived.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = seen.wait_for(|a| *a >= n).await;
    }
    /// How many operations have come so far.
    pub fn arrived(&self) -> usize {
        *self.arrived.borrow()
    }
    /// Lets them go, and all that come later.
    pub fn release(&self) {
        self.open.send_replace(true);
    }
}

struct FaultFile {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

struct State {
    rules: Vec<Rule>,
    holds: Vec<Arc<Hold>>,
    calls: Vec<(Op, String)>,
    rng: fastrand::Rng,
    file: Option<FaultFile>,
}

/// A store with faults.
pub struct FaultStore {
    inner: StoreRef,
    state: Mutex<State>,
}

impl FaultStore {
    /// Wraps `inner`; without rules it only counts. `seed` decides the rules with a chance.
    pub fn new(inner: StoreRef, seed: u64) -> Arc<Self> {
        Self::with(inner, seed, None)
    }

    /// Takes the rules from a file, read again whenever its time or size changes.
    pub fn from_file(inner: StoreRef, seed: u64, path: PathBuf) -> Arc<Self> {
        tracing::warn!("faults are injected into the store as {} says (TCFS_FAULT)", path.display());
        Self::with(inner, seed, Some(FaultFile { path, seen: None }))
    }

    fn with(inner: StoreRef, seed: u64, file: Option<FaultFile>) -> Arc<Self> {
        let state = State { rules: Vec::new(), holds: Vec::new(), calls: Vec::new(), rng: fastrand::Rng::with_seed(seed), file };
        Arc::new(FaultStore { inner, state: Mutex::new(state) })
    }

    /// Replaces all rules.
    pub fn set(&self, rules: Vec<Rule>) {
        self.state.lock().rules = rules;
    }

    /// No more faults; holds stay.
    pub fn clear(&self) {
        self.set(Vec::new());
    }

    /// Holds back operations (one kind, or all) on keys that start with `prefix`, until released.
    pub fn hold(&self, only: Option<Op>, prefix: &str) -> Arc<Hold> {
        let hold = Arc::new(Hold { prefix: prefix.to_owned(), only, arrived: watch::channel(0).0, open: watch::channel(false).0 });
        self.state.lock().holds.push(hold.clone());
        hold
    }

    /// How many operations of a kind came in, on keys that start with `prefix`. Not counted with a fault file.
    pub fn calls(&self, op: Op, prefix: &str) -> usize {
        self.state.lock().calls.iter().filter(|(o, k)| *o == op && k.starts_with(prefix)).count()
    }

    /// Forgets what was counted.
    pub fn reset_calls(&self) {
        self.state.lock().calls.clear();
    }

    /// Waits out holds and delays and says which fault strikes.
    async fn enter(&self, op: Op, key: &str) -> Result<Option<Mode>> {
        let (holds, delay, mode) = {
            let mut s = self.state.lock();
            let s = &mut *s;
            if let Some(file) = &mut s.file {
                if let Some(rules) = file.changed() {
                    s.rules = rules;
                }
            } else {
                s.calls.push((op, key.to_owned()));
            }
            s.holds.retain(|h| !*h.open.borrow());
            let fits = |h: &&Arc<Hold>| h.only.is_none_or(|o| o == op) && key.starts_with(&h.prefix);
            let holds: Vec<Arc<Hold>> = s.holds.iter().filter(fits).cloned().collect();
            let (mut delay, mut mode) = (0, None);
            for rule in &mut s.rules {
                let slow = matches!(rule.mode, Mode::SlowMs(_));
                if !rule.fits(op, key) || (!slow && mode.is_some()) || (rule.chance < 1.0 && s.rng.f64() >= rule.chance) {
                    continue;
                }
                if let Some(n) = &mut rule.times {
                    *n -= 1;
                }
                match rule.mode {
                    Mode::SlowMs(ms) => delay += ms,
                    m => mode = Some(m),
                }
            }
            (holds, delay, mode)
        };
        for hold in holds {
            let mut open = hold.open.subscribe();
            hold.arrived.send_modify(|n| *n += 1);
            // The sender lives in `hold`, so waiting cannot fail.
            let _ = open.wait_for(|o| *o).await;
        }
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let failed = |kind, why: &str| Err(Error::new(kind, format!("{} {key} in {}: {why} (injected)", op.name(), self.describe())));
        match mode {
            Some(Mode::Down) => failed(Kind::Unavailable, "connection refused"),
            Some(Mode::Status500) => failed(Kind::Unavailable, "500 Internal Server Error"),
            Some(Mode::Timeout) => failed(Kind::Timeout, "no answer"),
            Some(Mode::Unauthorized) => failed(Kind::Unauthorized, "403 Forbidden"),
            Some(Mode::NoSpace) if op == Op::Put => failed(Kind::NoSpace, "507 Insufficient Storage"),
            Some(Mode::Hang) => std::future::pending().await,
            other => Ok(other),
        }
    }

    /// What becomes of the answer.
    fn leave<T>(&self, op: Op, key: &str, mode: Option<Mode>, result: Result<T>) -> Result<T> {
        match (mode, result) {
            (Some(Mode::LostAck), Ok(_)) => {
                Err(Error::new(Kind::Timeout, format!("{} {key} in {}: the answer was lost (injected)", op.name(), self.describe())))
            }
            (_, r) => r,
        }
    }
}

impl FaultFile {
    /// New rules if the file is not the one read last. Unreadable rules leave the former ones in force.
    fn changed(&mut self) -> Option<Vec<Rule>> {
        let now = std::fs::metadata(&self.path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        if now == self.seen {
            return None;
        }
        self.seen = now;
        let text = match std::fs::read_to_string(&self.path) {
            Ok(t) => t,
            Err(_) => return Some(Vec::new()),
        };
        match parse_rules(&text) {
            Ok(rules) => Some(rules),
            Err(e) => {
                tracing::warn!("{}: {e}; the faults stay as they were", self.path.display());
                None
            }
        }
    }
}

/// One rule, a list of rules, or nothing.
pub fn parse_rules(text: &str) -> serde_json::Result<Vec<Rule>> {
    match text.trim_start().chars().next() {
        None => Ok(Vec::new()),
        Some('[') => serde_json::from_str(text),
        Some(_) => serde_json::from_str(text).map(|r| vec![r]),
    }
}

#[async_trait]
impl Store for FaultStore {
    async fn get(&self, key: &str) -> Result<Bytes> {
        let mode = self.enter(Op::Get, key).await?;
        if mode == Some(Mode::Missing) {
            return Err(Error::new(Kind::NotFound, format!("no object {key} (injected)")));
        }
        let body = self.leave(Op::Get, key, mode, self.inner.get(key).await)?;
        Ok(match mode {
            Some(Mode::Truncate) => body.slice(..body.len() / 2),
            Some(Mode::Garble) if !body.is_empty() => {
                let mut bytes = body.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                bytes.into()
            }
            _ => body,
        })
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let fault = self.enter(Op::Put, key).await?;
        let mode = if fault == Some(Mode::IgnoreIfAbsent) { PutMode::Overwrite } else { mode };
        self.leave(Op::Put, key, fault, self.inner.put(key, body, mode).await)
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let mode = self.enter(Op::List, prefix).await?;
        if mode == Some(Mode::Missing) {
            return Ok(Page::default());
        }
        self.leave(Op::List, prefix, mode, self.inner.list(prefix, after).await)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mode = self.enter(Op::Delete, key).await?;
        self.leave(Op::Delete, key, mode, self.inner.delete(key).await)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let mode = self.enter(Op::Head, key).await?;
        if mode == Some(Mode::Missing) {
            return Ok(None);
        }
        self.leave(Op::Head, key, mode, self.inner.head(key).await)
    }

    async fn is_away(&self) -> bool {
        self.inner.is_away().await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn watch(&self, prefix: &str) -> Option<tokio::sync::mpsc::Receiver<()>> {
        self.inner.watch(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    const OVER: PutMode = PutMode::Overwrite;

    #[tokio::test]
    async fn rules_strike_where_they_fit_and_as_often_as_they_say() {
        let s = FaultStore::new(MemoryStore::new(), 1);
        s.put("a/x", Bytes::from_static(b"abcdef"), OVER).await.unwrap();
        s.set(vec![Rule::new(Mode::Down).only(Op::Get).prefix("a/").times(2), Rule::new(Mode::Truncate).only(Op::Get)]);
        s.head("a/x").await.unwrap();
        for _ in 0..2 {
            assert_eq!(s.get("a/x").await.unwrap_err().kind(), Kind::Unavailable);
        }
        assert_eq!(s.get("a/x").await.unwrap(), "abc");
        s.set(vec![Rule::new(Mode::Garble)]);
        assert_eq!(s.get("a/x").await.unwrap(), "abceef");
        s.set(vec![Rule::new(Mode::LostAck)]);
        assert_eq!(s.put("a/y", Bytes::from_static(b"1"), OVER).await.unwrap_err().kind(), Kind::Timeout);
        s.clear();
        assert_eq!(s.get("a/y").await.unwrap(), "1", "the put was done all the same");
        assert_eq!((s.calls(Op::Get, "a/x"), s.calls(Op::Put, "")), (4, 2));
    }

    #[tokio::test]
    async fn a_chance_follows_from_the_seed() {
        let mut runs = Vec::new();
        for seed in [7, 7, 8] {
            let s = FaultStore::new(MemoryStore::new(), seed);
            s.set(vec![Rule::new(Mode::Timeout).chance(0.5)]);
            let mut run = Vec::new();
            for _ in 0..64 {
                run.push(s.head("a").await.is_ok());
            }
            runs.push(run);
        }
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0], runs[2]);
        assert!(runs[0].contains(&true) && runs[0].contains(&false));
    }

    #[tokio::test]
    async fn held_operations_wait_until_they_are_released() {
        let s = FaultStore::new(MemoryStore::new(), 1);
        let hold = s.hold(Some(Op::Put), "a/");
        let task = tokio::spawn({
            let s = s.clone();
            async move { s.put("a/x", Bytes::new(), OVER).await }
        });
        hold.reached(1).await;
        s.put("b/x", Bytes::new(), OVER).await.unwrap();
        assert_eq!(s.head("a/x").await.unwrap(), None);
        hold.release();
        task.await.unwrap().unwrap();
        assert!(s.head("a/x").await.unwrap().is_some());
        s.put("a/y", Bytes::new(), OVER).await.unwrap();
    }

    #[test]
    fn the_documented_example_is_what_is_read() {
        let doc: String = include_str!("fault.rs").lines().skip_while(|l| *l != "//! ```json").skip(1).take(3).map(|l| &l[4..]).collect();
        let rules = parse_rules(&doc).unwrap();
        let expected = [
            Rule::new(Mode::Down).only(Op::List),
            Rule::new(Mode::SlowMs(300)).only(Op::Get).prefix("default/chunks/"),
            Rule::new(Mode::LostAck).only(Op::Put).chance(0.1).times(5),
        ];
        assert_eq!(rules, expected);
        assert_eq!(parse_rules(r#" {"mode":"garble"}"#).unwrap(), [Rule::new(Mode::Garble)]);
        assert_eq!(parse_rules("\n").unwrap(), []);
        assert!(parse_rules(r#"{"mode":"down","onyl":"get"}"#).is_err(), "a typing error must not mean `everywhere`");
    }

    #[tokio::test]
    async fn a_fault_file_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("faults.json");
        let s = FaultStore::from_file(MemoryStore::new(), 1, file.clone());
        s.head("a").await.unwrap();
        std::fs::write(&file, r#"{"mode":"status500","only":"head"}"#).unwrap();
        assert_eq!(s.head("a").await.unwrap_err().kind(), Kind::Unavailable);
        std::fs::write(&file, r#"{"mode":"nonsense"}"#).unwrap();
        assert!(s.head("a").await.is_err(), "a broken file changes nothing");
        std::fs::write(&file, r#"[{"mode":{"slow_ms":1}}]"#).unwrap();
        s.head("a").await.unwrap();
        std::fs::remove_file(&file).unwrap();
        s.head("a").await.unwrap();
    }
}
