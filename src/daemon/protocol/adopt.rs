//! `adopt`: taking over a bucket in the older layout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of [`super::Request::Adopt`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adopt {
    /// URL of the store that has the older layout; none: this drive's own.
    #[serde(default)]
    pub from: Option<String>,
    /// Prefix of the older layout there, without slashes at its ends, may be empty; none: that of the URL.
    #[serde(default)]
    pub prefix: Option<String>,
    /// What becomes of paths that begin with the prefix once more; none: they are listed and left.
    #[serde(default)]
    pub doubled: Option<Doubled>,
    /// Read and compare everything, write nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a path such as `data/plan.md` below the prefix `data` becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Doubled {
    /// `data/plan.md`: it is a directory of that name.
    Keep,
    /// `plan.md`: it was an accident.
    Strip,
}

/// What became of an old path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdoptOutcome {
    /// It is in the drive now.
    #[default]
    Adopted,
    /// It is in the drive now, in the place of an older version of it that nobody here had touched.
    Updated,
    /// It is in the drive now, beside something else of that name.
    Conflict,
    /// The drive has the same.
    Same,
    /// It was adopted before, and the drive has gone on since.
    GoneOn,
    /// It was deleted there. Nothing is removed here.
    Deleted,
    /// Its first version was never completed.
    Unfinished,
    /// It is encrypted for devices of the older tcfs.
    Encrypted,
    /// It cannot be read.
    Unreadable,
    /// It begins with the prefix once more.
    Doubled,
    /// It would never leave this machine.
    LocalOnly,
}

/// A line of `tcfs adopt --json`: one old path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptedPath {
    /// Path in the drive, or as the older layout has it where it is none.
    pub path: String,
    /// What became of it.
    pub outcome: AdoptOutcome,
    /// Bytes.
    pub size: u64,
    /// Why, where it was not adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A device of the older registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OldDevice {
    /// Its name.
    pub name: String,
    /// Its id there.
    pub id: String,
    /// It was revoked.
    pub revoked: bool,
}

/// Keys that are no content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IgnoredKeys {
    /// What they begin with.
    pub prefix: String,
    /// How many there are.
    pub objects: u64,
}

/// Sum of `tcfs adopt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptSum {
    /// URL of the store that was read, without secrets.
    pub from: String,
    /// Prefix there.
    pub prefix: String,
    /// Nothing was written.
    pub dry_run: bool,
    /// Index entries there.
    pub entries: u64,
    /// Taken over now, conflicts and updates included.
    pub adopted: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Of these, in the place of an older version.
    pub updated: u64,
    /// Of these, beside something else.
    pub conflicts: u64,
    /// In the drive already.
    pub same: u64,
    /// Adopted before and changed in the drive since.
    pub gone_on: u64,
    /// Deleted there.
    pub deleted: u64,
    /// Never completed there.
    pub unfinished: u64,
    /// Encrypted.
    pub encrypted: u64,
    /// Not readable.
    pub unreadable: u64,
    /// With the prefix once more.
    pub doubled: u64,
    /// Left out because they would never leave this machine.
    pub local_only: u64,
    /// Keys that are no content.
    pub ignored: Vec<IgnoredKeys>,
    /// Devices of the older registry.
    pub devices: Vec<OldDevice>,
    /// Sentences for people.
    pub notes: Vec<String>,
    /// Not everything is in the store's log yet.
    pub queued: bool,
}

impl AdoptSum {
    /// Counts one path.
    pub fn add(&mut self, p: &AdoptedPath) {
        use AdoptOutcome::*;
        let taken = matches!(p.outcome, Adopted | Updated | Conflict);
        self.adopted += u64::from(taken);
        self.bytes += if taken { p.size } else { 0 };
        let slot = match p.outcome {
            Adopted => return,
            Updated => &mut self.updated,
            Conflict => &mut self.conflicts,
            Same => &mut self.same,
            GoneOn => &mut self.gone_on,
            Deleted => &mut self.deleted,
            Unfinished => &mut self.unfinished,
            Encrypted => &mut self.encrypted,
            Unreadable => &mut self.unreadable,
            Doubled => &mut self.doubled,
            LocalOnly => &mut self.local_only,
        };
        *slot += 1;
    }

    /// Whether a person should look at something.
    pub fn is_part(&self) -> bool {
        self.queued || self.conflicts + self.encrypted + self.unreadable + self.doubled + self.local_only > 0
    }
}
