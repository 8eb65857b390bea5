//! The older layout of a bucket, read only: index entries (text, JSON versions 2 to 4) and manifests (text, JSON
//! versions 2 and 3), for `tcfs adopt`.
//!
//! Must: what cannot be understood is an error that says so; nothing is guessed. Must: a delete is only what says it is
//! one. Nothing of this is ever written.
//! Not here: listing the bucket, building versions from what was read (`fleet`).

use super::hash::Hash;
use super::manifest::Manifest;
use super::vclock::VClock;
use crate::error::{Error, Kind as ErrorKind, Result};
use serde::Deserialize;

/// What an object under `index/` says of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldEntry {
    /// A regular file. The manifest's id is opaque.
    File {
        /// Last part of the key under `manifests/`.
        manifest: String,
        /// Bytes.
        size: u64,
        /// Number of chunks.
        chunks: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Target text.
        target: String,
        /// Its manifest, if it names one.
        manifest: Option<String>,
    },
    /// The marker of an empty directory (`.tcfs_dir`).
    Directory,
    /// The path was deleted.
    Deleted,
    /// First write of the path under way: nothing counts yet.
    Nothing,
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("reading an index entry of the older layout: {what}"))
}

impl OldEntry {
    /// Parses the body of an index object.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a version this program does not know.
    pub fn parse(body: &[u8]) -> Result<OldEntry> {
        let text = std::str::from_utf8(body).map_err(|e| corrupt("it is not text").source(e))?;
        if text.trim_start().starts_with('{') { parse_json(text) } else { parse_text(text) }
    }
}

fn parse_text(text: &str) -> Result<OldEntry> {
    let (mut manifest, mut size, mut chunks, mut directory) = (None, None, None, false);
    let number = |value: &str| value.parse::<u64>().map_err(|_| corrupt(format_args!("{value:?} is no number")));
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match line.split_once('=') {
            Some(("manifest_hash", value)) => manifest = Some(value.to_owned()),
            Some(("size", value)) => size = Some(number(value)?),
            Some(("chunks", value)) => chunks = Some(number(value)?),
            Some(("type", "directory")) => directory = true,
            Some(_) => {}
            None => return Err(corrupt(format_args!("a line without `=`: {:?}", line.chars().take(80).collect::<String>()))),
        }
    }
    match (directory, manifest, size, chunks) {
        (true, None, None, None) => Ok(OldEntry::Directory),
        (false, Some(manifest), Some(size), Some(chunks)) => Ok(OldEntry::File { manifest: object_id(manifest)?, size, chunks }),
        _ => Err(corrupt("manifest_hash, size and chunks have to be there, and nothing else of its kind")),
    }
}

#[derive(Deserialize)]
struct JsonEntry {
    version: u64,
    state: String,
    #[serde(default)]
    current: Option<Current>,
}

#[derive(Deserialize)]
struct Current {
    #[serde(default)]
    manifest_hash: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    chunks: Option<u64>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    symlink_target: Option<String>,
}

/// What keeps objects of the older layout alive: the ids of manifests that an index object names, and the whole keys of
/// staged ones. Of one that cannot be understood, whatever could be an id.
pub fn named_by(body: &[u8]) -> (Vec<String>, Vec<String>) {
    let Ok(text) = std::str::from_utf8(body) else { return (hashes_in(body), Vec::new()) };
    let Ok(entry) = serde_json::from_str::<serde_json::Value>(text) else {
        return match OldEntry::parse(body) {
            Ok(OldEntry::File { manifest, .. }) => (vec![manifest], Vec::new()),
            _ => (hashes_in(body), Vec::new()),
        };
    };
    let mut ids = hashes_in(body);
    let of = |part: &str, field: &str| entry[part][field].as_str().map(str::to_owned);
    ids.extend(["current", "pending"].iter().filter_map(|p| of(p, "manifest_hash")).filter_map(|id| object_id(id).ok()));
    ids.sort_unstable();
    ids.dedup();
    (ids, of("pending", "staged_manifest_key").into_iter().collect())
}

/// The chunks that a manifest of the older layout keeps alive. Of one that cannot be understood, whatever could be a hash.
pub fn chunks_of(body: &[u8]) -> Vec<Hash> {
    match OldManifest::parse(body) {
        Ok(OldManifest::File { manifest, .. }) => manifest.chunks().to_vec(),
        Ok(OldManifest::Symlink { .. }) => Vec::new(),
        Err(_) => hashes_in(body).iter().filter_map(|h| h.parse().ok()).collect(),
    }
}

/// Every run of exactly 64 hex digits.
fn hashes_in(body: &[u8]) -> Vec<String> {
    Hash::named_in(body).map(|h| h.to_hex()).collect()
}

fn parse_json(text: &str) -> Result<OldEntry> {
    let entry: JsonEntry = serde_json::from_str(text).map_err(|e| corrupt("JSON").source(e))?;
    if !(2..=4).contains(&entry.version) {
        let what = format!("reading an index entry of the older layout: it has version {}", entry.version);
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    match (entry.state.as_str(), entry.current) {
        ("committed" | "preparing", Some(current)) => current.entry(),
        // What is being prepared does not count before it is committed.
        ("preparing", None) => Ok(OldEntry::Nothing),
        ("deleted", None) => Ok(OldEntry::Deleted),
        (state, current) => {
            let has = if current.is_some() { "with" } else { "without" };
            Err(corrupt(format_args!("state {state:?} {has} a current version")))
        }
    }
}

impl Current {
    fn entry(self) -> Result<OldEntry> {
        match (self.kind.as_deref(), self.symlink_target) {
            (Some("symlink"), Some(target)) => Ok(OldEntry::Symlink { target, manifest: self.manifest_hash.map(object_id).transpose()? }),
            (None | Some("file" | "regular" | "regular_file"), None) => match (self.manifest_hash, self.size, self.chunks) {
                (Some(manifest), Some(size), Some(chunks)) => Ok(OldEntry::File { manifest: object_id(manifest)?, size, chunks }),
                _ => Err(corrupt("manifest_hash, size or chunks is missing")),
            },
            (kind, _) => Err(corrupt(format_args!("kind {kind:?} with or without a link target"))),
        }
    }
}

/// An id is opaque, but it becomes part of a key.
fn object_id(id: String) -> Result<String> {
    let tame = !id.is_empty() && id.len() <= 255 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if tame { Ok(id) } else { Err(corrupt(format_args!("manifest id {:?}", id.chars().take(80).collect::<String>()))) }
}

/// A manifest of the older layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldManifest {
    /// Text or JSON; boundaries are no part of the contract: readers concatenate.
    File {
        /// The chunk list.
        manifest: Manifest,
        /// Its chunks are ciphertext for which this program has no key.
        encrypted: bool,
    },
    /// A symbolic link (version 3).
    Symlink {
        /// Target text.
        target: String,
        /// Clock under which it was written.
        vclock: VClock,
    },
}

#[derive(Deserialize)]
struct OldHeader {
    version: u64,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    symlink_target: Option<String>,
    #[serde(default)]
    vclock: VClock,
    #[serde(default)]
    encrypted_file_key: Option<serde_json::Value>,
    #[serde(default)]
    wrapped_file_keys: Option<serde_json::Value>,
}

impl OldManifest {
    /// Parses and checks a body.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a version above 3.
    pub fn parse(body: &[u8]) -> Result<OldManifest> {
        let text = std::str::from_utf8(body).map_err(|e| corrupt("a manifest that is not text").source(e))?;
        if !text.trim_start().starts_with('{') {
            return Ok(OldManifest::File { manifest: Manifest::parse(body)?, encrypted: false });
        }
        let header: OldHeader = serde_json::from_str(text).map_err(|e| corrupt("a manifest that is no JSON").source(e))?;
        if header.version == 3 && header.kind.as_deref() == Some("symlink") {
            let target = header.symlink_target.ok_or_else(|| corrupt("a link's manifest without a target"))?;
            return Ok(OldManifest::Symlink { target, vclock: header.vclock });
        }
        let encrypted = header.encrypted_file_key.is_some() || header.wrapped_file_keys.is_some();
        let manifest = if header.version == 3 {
            // Version 3 of a regular file says what version 2 does, its keys aside.
            let mut fields: serde_json::Value = serde_json::from_str(text).map_err(|e| corrupt("a manifest").source(e))?;
            fields["version"] = 2.into();
            Manifest::parse(fields.to_string().as_bytes())?
        } else {
            Manifest::parse(body)?
        };
        Ok(OldManifest::File { manifest, encrypted })
    }

    /// Hash of the whole file where the manifest, or its id by the custom of early writers, may tell it.
    pub fn file_hash(&self, id: &str) -> Option<Hash> {
        match self {
            OldManifest::File { manifest: Manifest::V2(m), .. } => m.file_hash,
            OldManifest::File { manifest: Manifest::V1(_), .. } => id.parse().ok(),
            OldManifest::Symlink { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREPARING: &[u8] = include_bytes!("../../tests/golden/old/index-preparing.json");
    const TEXT: &[u8] = include_bytes!("../../tests/golden/old/index.txt");
    const DELETED: &[u8] = include_bytes!("../../tests/golden/old/index-v4-deleted.json");
    const ENCRYPTED: &[u8] = include_bytes!("../../tests/golden/old/manifest-v2-encrypted.json");

    #[test]
    fn what_is_being_prepared_is_alive_as_well() {
        let (ids, staged) = named_by(PREPARING);
        assert_eq!((ids.len(), staged), (2, vec!["data/staging/x".to_owned()]));
        assert_eq!(named_by(TEXT).0.len(), 1);
        assert_eq!(named_by(DELETED).0.len(), 0);
    }

    #[test]
    fn what_cannot_be_understood_keeps_all_that_it_may_name() {
        let hash = "ab".repeat(32);
        for body in
            [format!("{{\"version\":9,\"x\":\"{hash}\"}}"), format!("manifest_hash={hash}\nsize=x\n"), format!("{{\"cut off\":[\"{hash}\"")]
        {
            assert_eq!(named_by(body.as_bytes()).0, std::slice::from_ref(&hash), "{body}");
            assert_eq!(chunks_of(body.as_bytes()).len(), 1, "{body}");
        }
        let mut bytes = vec![0xff, 0];
        bytes.extend(hash.as_bytes());
        assert_eq!((named_by(&bytes).0.len(), chunks_of(&bytes).len()), (1, 1));
        assert_eq!(chunks_of(ENCRYPTED).len(), 1);
    }
}
