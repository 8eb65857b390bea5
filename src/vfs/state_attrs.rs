//! `user.tcfs.*`: extended attributes that tell where a file stands, for `getfattr` and file managers.
//!
//! | attribute | value |
//! |---|---|
//! | `state` | `stub`, `partial`, `hydrated`, `dirty`, `conflict`, `local-only` |
//! | `hash` | BLAKE3 of the content, hex, where it is known |
//! | `version` | id of the version that is shown, as `tcfs history` prints it |
//! | `device` | name of the device that wrote it |
//! | `pinned` | `yes` or `no`; setting it to `yes`, `1`, `no` or `0` pins and unpins |
//! | `pending` | `yes` while something of it is not in the store |
//! | `conflict` | the names of the other versions beside it, a line each |
//!
//! Must: none of them waits for the store.

use super::{Held, Vfs, is_control};
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::state::Tree;
use crate::state::rows::{Register, Sealed, Slot, slot_key};
use crate::state::tree::path_of_dir;

/// What their names begin with.
pub(super) const STATE: &str = "user.tcfs.";
/// Rows of the outbox that are looked through for what is pending.
const OUTBOX: usize = 10_000;

fn none(what: &str) -> Error {
    Error::new(Kind::NoAttr, format!("no attribute {STATE}{what}"))
}

fn yes(is: bool) -> Vec<u8> {
    if is { b"yes".to_vec() } else { b"no".to_vec() }
}

impl Vfs {
    pub(super) fn state_attr(&self, ino: u64, what: &str) -> Result<Vec<u8>> {
        if is_control(ino) {
            return Err(none(what));
        }
        match what {
            "pinned" => return self.replica.read(|r| self.is_pinned(r, ino)).map(yes),
            "state" | "hash" | "version" | "device" | "pending" | "conflict" => {}
            _ => return Err(none(what)),
        }
        let Some((dir, name, attr)) = self.place_of(ino) else { return Err(none(what)) };
        let path = self.replica.read(|r| Ok(path_of_dir(r, dir)?.join(&name)))?;
        let look = self.look(&super::Found { dir, name: name.clone(), path: path.clone(), attr })?;
        let text = match what {
            "state" if look.held == Held::LocalOnly => "local-only".to_owned(),
            "state" if look.held == Held::Pending => "dirty".to_owned(),
            "state" if look.conflict => "conflict".to_owned(),
            "state" => match look.held {
                Held::Stub => "stub",
                Held::Partial => "partial",
                _ => "hydrated",
            }
            .to_owned(),
            "pending" => return Ok(yes(look.held == Held::Pending || self.in_outbox(&path)?)),
            "device" if look.device.is_empty() => return Err(none(what)),
            "device" => look.device,
            "conflict" => self.siblings_of(dir, &name)?.ok_or_else(|| none(what))?.join("\n"),
            _ => {
                let shown = self.shown_by(dir, &name, ino)?.ok_or_else(|| none(what))?;
                match what {
                    "version" => shown.id(),
                    _ => shown.file().and_then(|c| c.hash).ok_or_else(|| none(what))?.to_string(),
                }
            }
        };
        Ok(text.into_bytes())
    }

    /// Pins and unpins by `pinned`; nothing else can be set.
    pub(super) fn set_state_attr(&self, ino: u64, what: &str, value: Option<&[u8]>) -> Result<()> {
        if what != "pinned" {
            return Err(Error::new(Kind::NotPermitted, format!("attribute {STATE}{what} tells state and cannot be set")));
        }
        let on = match value.map(|v| v.trim_ascii()) {
            Some(b"yes" | b"1" | b"true") => true,
            None | Some(b"no" | b"0" | b"false" | b"") => false,
            Some(v) => {
                let v = String::from_utf8_lossy(v);
                return Err(Error::new(Kind::Invalid, format!("{STATE}{what} is yes or no, not {v:?}")));
            }
        };
        let path = self.path_of(ino)?;
        if path.is_root() {
            return Err(Error::new(Kind::NotPermitted, "the whole drive is pinned by `tcfs pin /`"));
        }
        self.pin(&path, on)?;
        for w in self.watchers.read().iter() {
            w.pins();
        }
        Ok(())
    }

    /// Whether a version of exactly this path is not in the store yet.
    fn in_outbox(&self, path: &RelPath) -> Result<bool> {
        let rows: Vec<(u64, Sealed)> = self.replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, OUTBOX))?;
        Ok(rows.iter().any(|(_, s)| s.versions.iter().any(|v| v.path == *path)))
    }

    /// The register behind a name, and the name of it.
    fn register_behind(&self, dir: u64, name: &str) -> Result<Option<(Box<Register>, String)>> {
        self.replica.read(|r| {
            let at = |n: &str| r.get::<Slot>(Tree::Entry, slot_key(dir, n));
            Ok(match at(name)? {
                Some(Slot::Register(reg)) => Some((reg, name.to_owned())),
                Some(Slot::Sibling { of, .. }) => match at(&of)? {
                    Some(Slot::Register(reg)) => Some((reg, of)),
                    _ => None,
                },
                _ => None,
            })
        })
    }

    /// The other names of an entry in conflict.
    fn siblings_of(&self, dir: u64, name: &str) -> Result<Option<Vec<String>>> {
        let Some((reg, main)) = self.register_behind(dir, name)? else { return Ok(None) };
        let all = std::iter::once(main).chain(reg.sibs.iter().map(|s| s.name.clone()));
        let others: Vec<String> = all.filter(|n| n != name).collect();
        Ok((!others.is_empty()).then_some(others))
    }

    /// The version that an entry shows; none for what no device wrote.
    pub fn shown_at(&self, f: &super::Found) -> Result<Option<crate::model::Version>> {
        if f.dir == 0 { Ok(None) } else { self.shown_by(f.dir, &f.name, f.attr.ino) }
    }

    /// The version that an inode shows under a name.
    pub(crate) fn shown_by(&self, dir: u64, name: &str, ino: u64) -> Result<Option<crate::model::Version>> {
        let Some((reg, _)) = self.register_behind(dir, name)? else { return Ok(None) };
        if let Some(s) = reg.sibs.iter().find(|s| s.ino == ino) {
            return Ok(self.entry(&reg).heads.iter().find(|h| h.vclock == s.clock).cloned());
        }
        Ok(self.replica.read(|r| self.with_view(r, &reg, |v, _| v.shown.cloned()))?.flatten())
    }
}
