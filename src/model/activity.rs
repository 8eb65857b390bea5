//! What happens in the drive of one machine, as people and programs follow it: `/.tcfs/events`, `tcfs tui`.
//!
//! In JSON one object: `{"at":1770000000000,"event":"arrived","path":"plan.md","kind":"file","size":12,…}`. Nothing is decided
//! by it, and a reader that was slow may miss some.

use super::version::{Kind, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Activity {
    /// Here, milliseconds since 1970.
    pub at: i64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The daemon started.
    Started {
        /// Its version.
        version: String,
    },
    /// A version of this machine is in the store's log.
    Published(Change),
    /// A version of another machine is in the tree here.
    Arrived(Change),
    /// So many versions came at once, at a first start.
    CaughtUp {
        /// How many.
        versions: u64,
    },
    /// A path has more than one visible version now.
    Conflict {
        /// The path.
        path: String,
    },
    /// A path is not in conflict any more.
    Resolved {
        /// The path.
        path: String,
    },
    /// The store answers, or does not any more.
    Store {
        /// Whether it does.
        reachable: bool,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Another machine came, or went.
    Device {
        /// Its id.
        device: String,
        /// Whether it listens.
        online: bool,
    },
    /// Whoever reads this was too slow for so many.
    Missed {
        /// How many.
        events: u64,
    },
}

/// A version that came or went out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Path.
    pub path: String,
    /// `file`, `dir`, `symlink`, `bundle`, `removed`, `moved`, `held_back`.
    pub kind: String,
    /// Bytes, of files.
    pub size: u64,
    /// Name of the device that wrote it.
    pub device: String,
    /// When, by that machine's clock.
    pub written_at: i64,
    /// Its id, as in `tcfs history`.
    pub version: String,
    /// Where it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
}

impl Change {
    /// Of a version.
    pub fn of(v: &Version) -> Change {
        let kind = match &v.kind {
            Kind::File(_) => "file",
            Kind::Dir => "dir",
            Kind::Symlink { .. } => "symlink",
            Kind::Bundle { .. } => "bundle",
            Kind::Tombstone if v.moved_to.is_some() => "moved",
            Kind::Tombstone => "removed",
            Kind::HeldBack { .. } => "held_back",
        };
        Change {
            path: v.path.as_str().to_owned(),
            kind: kind.to_owned(),
            size: match &v.kind {
                Kind::File(c) | Kind::Bundle { content: c, .. } => c.size,
                _ => 0,
            },
            device: v.device_name.clone(),
            written_at: v.written_at,
            version: v.id(),
            moved_to: v.moved_to.as_ref().map(|p| p.as_str().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_and_comes_back() {
        let change = Change { path: "a b".into(), kind: "file".into(), size: 3, device: "yoga".into(), ..Change::default() };
        for (what, has) in [
            (What::Arrived(change), r#""event":"arrived""#),
            (What::Store { reachable: false, why: Some("no route".into()) }, r#""reachable":false"#),
            (What::Conflict { path: "p".into() }, r#""event":"conflict""#),
        ] {
            let a = Activity { at: 7, what };
            let text = serde_json::to_string(&a).unwrap();
            assert!(text.starts_with(r#"{"at":7,"#) && text.contains(has), "{text}");
            assert_eq!(serde_json::from_str::<Activity>(&text).unwrap(), a);
        }
    }
}
