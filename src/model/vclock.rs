//! Vector clocks: who had seen what when a version was written.
//!
//! An actor is a device id or `<device id>.<n>` (n ≥ 2): a device that writes without having accepted its own
//! latest version of a path starts a new actor, so that one device can have two heads and a plain comparison
//! still tells the truth. A clock never leaves its path, and no counter ever falls.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters this close to the end are refused instead of wrapped: nobody reaches them honestly.
pub const COUNTER_MAX: u64 = u64::MAX - (1 << 20);

/// Actor → counter; an absent actor counts 0. The empty clock precedes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VClock {
    clocks: BTreeMap<String, u64>,
}

/// A counter is too near the end of its range to be raised or accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterFull {
    /// Whose counter.
    pub actor: String,
}

impl std::fmt::Display for CounterFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the vector clock counter of {} is at its end", self.actor)
    }
}

impl std::error::Error for CounterFull {}

impl VClock {
    /// The empty clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counter of `actor`, 0 if it has none.
    pub fn get(&self, actor: &str) -> u64 {
        self.clocks.get(actor).copied().unwrap_or(0)
    }

    /// Sets a counter; 0 removes it.
    pub fn set(&mut self, actor: &str, n: u64) {
        if n == 0 {
            self.clocks.remove(actor);
        } else {
            self.clocks.insert(actor.to_owned(), n);
        }
    }

    /// Raises each counter to the other clock's where that is higher.
    pub fn merge(&mut self, other: &VClock) {
        for (a, n) in &other.clocks {
            let mine = self.clocks.entry(a.clone()).or_insert(0);
            *mine = (*mine).max(*n);
        }
    }

    /// `self` ≥ `other` in every component.
    pub fn ge(&self, other: &VClock) -> bool {
        other.clocks.iter().all(|(a, n)| self.get(a) >= *n)
    }

    /// `self` ≥ `other` in every component and > in at least one.
    pub fn covers(&self, other: &VClock) -> bool {
        self != other && self.ge(other)
    }

    /// Whether no actor has a counter.
    pub fn is_empty(&self) -> bool {
        self.clocks.is_empty()
    }

    /// Actors with their counters, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.clocks.iter().map(|(a, n)| (a.as_str(), *n))
    }

    /// Refuses counters of zero (not canonical) and those near the end.
    pub fn check(&self) -> Result<(), CounterFull> {
        match self.clocks.iter().find(|(_, n)| **n > COUNTER_MAX || **n == 0) {
            Some((a, _)) => Err(CounterFull { actor: a.clone() }),
            None => Ok(()),
        }
    }
}

impl<S: Into<String>> FromIterator<(S, u64)> for VClock {
    fn from_iter<I: IntoIterator<Item = (S, u64)>>(iter: I) -> Self {
        VClock { clocks: iter.into_iter().map(|(a, n)| (a.into(), n)).filter(|(_, n)| *n > 0).collect() }
    }
}
