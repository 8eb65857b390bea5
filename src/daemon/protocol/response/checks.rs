//! What `doctor` found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a check came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    #[default]
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

/// A line of `tcfs doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Stable name: `kernel`, `helper`, `config`, `socket`, `store`, `clock`, `cache`, `state`, `disk`, `records`,
    /// `names`, `brake`, `outbox`, `logs`, `bus`, `gc`, `mount`, `fix`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, for people.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// A check that came out well.
    pub fn ok(name: &str, detail: impl Into<String>) -> Check {
        Check { name: name.to_owned(), verdict: Verdict::Ok, detail: detail.into(), hint: None }
    }
    /// A check that somebody should look at.
    pub fn warn(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { name: name.to_owned(), verdict: Verdict::Warn, detail: detail.into(), hint: Some(hint.into()) }
    }
    /// A check that failed.
    pub fn fail(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { name: name.to_owned(), verdict: Verdict::Fail, detail: detail.into(), hint: Some(hint.into()) }
    }
}

/// Sum of `tcfs doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// Checks that came out well.
    pub ok: u64,
    /// Checks that warn.
    pub warned: u64,
    /// Checks that failed.
    pub failed: u64,
}

impl Checked {
    /// Counts one more.
    pub fn add(&mut self, v: Verdict) {
        match v {
            Verdict::Ok => self.ok += 1,
            Verdict::Warn => self.warned += 1,
            Verdict::Fail => self.failed += 1,
        }
    }
}
