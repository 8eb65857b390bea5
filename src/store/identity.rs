//! Which store this is: `P/store.json`, written once by whoever comes first.
//!
//! Must: a state that belongs to one store never works on another, so that a mistyped prefix or a foreign disk under a
//! familiar path is refused with a sentence instead of filling up. Must: two machines that make a store at the same
//! moment agree: what is read back decides, never what was written.

use super::keys::Keys;
use super::{PutMode, Store};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// Layout of the store that this program reads and writes.
pub const FORMAT: u32 = 1;

/// Contents of `store.json`. Unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreId {
    /// Random, 32 hex digits.
    pub id: String,
    /// [`FORMAT`] or, made by a newer program, a higher one.
    pub format: u32,
    /// Seconds since 1970 by the clock of whoever made it; garbage collection touches nothing older.
    pub created: i64,
}

/// The store's identity; none if there is no store at this place yet.
pub async fn read(store: &dyn Store, keys: &Keys) -> Result<Option<StoreId>> {
    match store.get(&keys.store_json()).await {
        Ok(body) => parse(&body).map(Some).map_err(|e| e.context(format!("{}/{}", store.describe(), keys.store_json()))),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e.context("reading the identity of the store")),
    }
}

/// The store's identity, made if it has none. Safe to call from many machines at once.
pub async fn ensure(store: &dyn Store, keys: &Keys, clock: &dyn Clock) -> Result<StoreId> {
    if let Some(id) = read(store, keys).await? {
        return Ok(id);
    }
    let new = StoreId { id: format!("{:016x}{:016x}", clock.random(), clock.random()), format: FORMAT, created: clock.now_ms() / 1000 };
    let body = serde_json::to_vec(&new).map_err(|e| Error::new(Kind::Internal, "writing store.json").source(e))?;
    store.put(&keys.store_json(), body.into(), PutMode::IfAbsent).await.map_err(|e| e.context("creating the store"))?;
    read(store, keys)
        .await?
        .ok_or_else(|| Error::new(Kind::Unavailable, format!("{} took {} and does not return it", store.describe(), keys.store_json())))
}

/// The store's identity, which must be `expected`: the one that this machine's state belongs to. A directory that is
/// missing or was never a store counts as a disk that is not mounted: the store does not answer.
pub async fn expect(store: &dyn Store, keys: &Keys, expected: &str) -> Result<StoreId> {
    let place = format!("{} (prefix `{}`)", store.describe(), keys.prefix());
    let hint = "check the spelling of `store` and whether its disk is mounted; `tcfs store move URL` copies everything to a new store and switches to it";
    match read(store, keys).await? {
        Some(found) if found.id == expected => Ok(found),
        Some(found) => {
            let what = format!("{place} is another store ({}) than the one this machine's state belongs to ({expected})", found.id);
            Err(Error::new(Kind::Usage, what).hint(hint))
        }
        None if store.is_away().await => {
            let what = format!("{} is missing or empty, but this machine's state belongs to a store there ({expected})", store.describe());
            Err(Error::new(Kind::Unavailable, what)
                .hint("is its disk or share mounted? Until it is, the drive works with what is here; `store` says where it is looked for"))
        }
        None => {
            let what = format!("there is no store at {place}, but this machine's state belongs to one ({expected})");
            Err(Error::new(Kind::Usage, what).hint(hint))
        }
    }
}

/// Reads a body that anybody may have written.
fn parse(body: &[u8]) -> Result<StoreId> {
    let found: StoreId =
        serde_json::from_slice(body).map_err(|e| Error::new(Kind::Corrupt, "this is not the identity of a tcfs store").source(e))?;
    if found.format > FORMAT {
        let what = format!("the store has format {}, this tcfs knows {FORMAT}", found.format);
        return Err(Error::new(Kind::Unsupported, what).hint("upgrade tcfs on this machine"));
    }
    let sane = (8..=64).contains(&found.id.len()) && found.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !sane || found.format == 0 {
        return Err(Error::new(Kind::Corrupt, "the identity of the store makes no sense"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::store::count::Op;
    use crate::store::fault::{FaultStore, Mode, Rule};
    use crate::store::memory::MemoryStore;
    use proptest::prelude::*;

    #[tokio::test]
    async fn two_makers_at_once_agree() {
        let store = FaultStore::new(MemoryStore::new(), 1);
        let keys = Keys::new("default");
        let hold = store.hold(Some(Op::Put), "default/store.json");
        let make = |seed| {
            let (store, keys) = (store.clone(), keys.clone());
            tokio::spawn(async move { ensure(&*store, &keys, &*ManualClock::new(1_700_000_000_000_000_000, seed)).await })
        };
        let (a, b) = (make(1), make(2));
        hold.reached(2).await;
        hold.release();
        let (a, b) = (a.await.unwrap().unwrap(), b.await.unwrap().unwrap());
        assert_eq!(a, b);
        assert_eq!(a.created, 1_700_000_000);
        assert_eq!(expect(&*store, &keys, &a.id).await.unwrap(), a);
    }

    #[tokio::test]
    async fn a_lost_answer_while_making_is_an_error_and_the_next_try_finds_it() {
        let store = FaultStore::new(MemoryStore::new(), 1);
        let keys = Keys::new("default");
        let clock = ManualClock::new(0, 1);
        store.set(vec![Rule::new(Mode::LostAck).only(Op::Put).times(1)]);
        assert_eq!(ensure(&*store, &keys, &*clock).await.unwrap_err().kind(), Kind::Timeout);
        let first = ensure(&*store, &keys, &*clock).await.unwrap();
        assert_eq!(ensure(&*store, &keys, &*clock).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_mistyped_prefix_and_a_foreign_store_are_refused_with_a_sentence() {
        let store = MemoryStore::new();
        let clock = ManualClock::new(0, 1);
        let mine = ensure(&*store, &Keys::new("default"), &*clock).await.unwrap();
        ensure(&*store, &Keys::new("other"), &*clock).await.unwrap();
        let e = expect(&*store, &Keys::new("defualt"), &mine.id).await.unwrap_err();
        assert!(e.to_string().contains("there is no store at memory: (prefix `defualt`)"), "{e}");
        let e = expect(&*store, &Keys::new("other"), &mine.id).await.unwrap_err();
        assert!(e.to_string().contains("is another store"), "{e}");
        assert!(e.hint_text().unwrap().contains("tcfs store move"));
    }

    #[test]
    fn newer_formats_and_nonsense_are_told_apart() {
        let parse = |s: &str| parse(s.as_bytes()).map_err(|e| e.kind());
        assert_eq!(parse(r#"{"id":"0011223344556677","format":2,"created":1}"#), Err(Kind::Unsupported));
        assert_eq!(parse(r#"{"id":"../../x/../..","format":1,"created":1}"#), Err(Kind::Corrupt));
        assert_eq!(parse(r#"{"id":"0011223344556677","format":0,"created":1}"#), Err(Kind::Corrupt));
        assert!(parse(r#"{"id":"0011223344556677","format":1,"created":1,"later":[]}"#).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn nearly_right_json_never_gives_a_strange_id(id in "\\PC{0,80}", format in any::<i64>(), created in any::<i64>()) {
            let body = serde_json::json!({ "id": id, "format": format, "created": created }).to_string();
            if let Ok(found) = parse(body.as_bytes()) {
                prop_assert!(found.id.len() >= 8 && found.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            }
        }
    }
}
