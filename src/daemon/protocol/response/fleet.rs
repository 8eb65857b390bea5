//! What machines share: the devices, and the store.

use super::DeviceRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of `tcfs device list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Id.
    pub id: String,
    /// Name as shown (with a suffix where two devices chose one while apart).
    pub name: String,
    /// It is this machine.
    pub this: bool,
    /// When it enrolled, by its clock.
    pub enrolled_at: i64,
    /// When it last renewed its lease or published, as far as known.
    pub last_seen_at: Option<i64>,
    /// Whether it listens on the event bus now; none where that was not heard (or there is no bus).
    #[serde(default)]
    pub online: Option<bool>,
    /// Batches in its log that are applied here.
    pub applied: u64,
    /// Shut out.
    pub revoked: bool,
    /// Its public key, base64.
    #[serde(default)]
    pub public_key: String,
}

/// Sum of `tcfs device list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Devices {
    /// Devices sent.
    pub devices: u64,
    /// The store did not answer: this is what is known here.
    #[serde(default)]
    pub offline: bool,
}

/// `tcfs device enroll` and `rename`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enrolled {
    /// This machine.
    pub device: DeviceRef,
    /// It was enrolled before.
    pub already: bool,
    /// Device that lost the name to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<DeviceRef>,
    /// Sentences for people (the wanted name was taken, the store did not answer, …).
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `tcfs device revoke`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revoked {
    /// The device.
    pub device: DeviceRef,
    /// Last batch of its log that counts.
    pub revoked_after: u64,
}

/// Objects of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Bytes as stored.
    pub bytes: u64,
}

/// A device that holds garbage collection back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// The device.
    pub device: DeviceRef,
    /// When it last said what it needs, milliseconds since 1970; none if it never did.
    pub lease_at: Option<i64>,
}

/// `tcfs gc`: chunks, manifests and snapshots in the store. The parts add up to `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// Nothing was removed: `removed` is what would have been.
    pub dry_run: bool,
    /// All that there were.
    pub all: Amount,
    /// Something needs them.
    pub needed: Amount,
    /// Nothing needs them, and they are too young to be judged.
    pub young: Amount,
    /// They are condemned, and wait until they may go.
    pub condemned: Amount,
    /// They might go, and devices hold them back.
    pub held: Amount,
    /// They are gone.
    pub removed: Amount,
    /// When the next of those that are condemned may go, milliseconds since 1970.
    pub next_at: Option<i64>,
    /// Who holds back.
    pub holders: Vec<Holder>,
    /// From when on everything can be brought back, milliseconds since 1970; none: since the beginning.
    pub history_from: Option<i64>,
}

/// `tcfs store show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreInfo {
    /// URL without secrets.
    pub url: String,
    /// Id from its `store.json`.
    pub id: Option<String>,
    /// Format number.
    pub format: Option<u32>,
    /// When it was created.
    pub created_at: Option<i64>,
    /// Whether it answers.
    pub reachable: bool,
}

/// `tcfs store move`, `tcfs store copy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreMoved {
    /// From.
    pub from: String,
    /// To.
    pub to: String,
    /// Objects copied.
    pub objects: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Objects that were there already.
    pub present: u64,
}
