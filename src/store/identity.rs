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

/// The store's identity, which must be `expected`: the one that this machine's state belongs to.
pub async fn expect(store: &dyn Store, keys: &Keys, expected: &str) -> Result<StoreId> {
    expect_where(store, keys, expected, None).await
}

/// [`expect`], with the place where that store was last seen ([`place`]).
///
/// Errors: `Usage` if there is another store, or none; `Unavailable` if the place is the one where it was, and is missing
/// or was never used by a store: a disk that is not mounted.
pub async fn expect_where(store: &dyn Store, keys: &Keys, expected: &str, last: Option<&str>) -> Result<StoreId> {
    let here = place(store, keys);
    let moved = last.filter(|l| *l != here);
    let was = moved.map_or(String::new(), |l| format!("; it was last at {l}"));
    let hint = "check the spelling of `store` and whether its disk is mounted; `tcfs store move URL` copies everything to a new store and switches to it";
    let mut found = read(store, keys).await?;
    if found.as_ref().is_some_and(|f| f.id != expected) {
        // Another store says the same twice; an answer that was damaged on its way does not.
        let again = read(store, keys).await?;
        if again != found && again.as_ref().is_none_or(|f| f.id != expected) {
            return Err(Error::new(Kind::Unavailable, format!("{here} tells another identity each time it is asked")));
        }
        found = again;
    }
    match found {
        Some(found) if found.id == expected => Ok(found),
        Some(found) => {
            let what = format!("{here} is another store ({}) than the one this machine's state belongs to ({expected}){was}", found.id);
            Err(Error::new(Kind::Usage, what).hint(hint))
        }
        None if moved.is_none() && store.is_away().await => {
            let what =
                format!("{} is missing or empty, but this machine's state belongs to the store there ({expected})", store.describe());
            Err(Error::new(Kind::Unavailable, what)
                .hint("is its disk or share mounted? Until it is, the drive works with what is here; `store` says where it is looked for"))
        }
        None => {
            let what = format!("there is no store at {here}, but this machine's state belongs to one ({expected}){was}");
            Err(Error::new(Kind::Usage, what).hint(hint))
        }
    }
}

/// Where a store is, for people, and to be compared with where it was.
pub fn place(store: &dyn Store, keys: &Keys) -> String {
    format!("{} (prefix `{}`)", store.describe(), keys.prefix())
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
    use crate::store::dir::DirStore;
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

    #[tokio::test]
    async fn a_directory_that_is_missing_or_empty_is_away_if_the_store_was_there_and_wrong_if_it_was_elsewhere() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, keys) = (tmp.path().join("store"), Keys::new("default"));
        let open = || DirStore::new(&dir, 1);
        let made = ensure(&open(), &keys, &*ManualClock::new(0, 1)).await.unwrap();
        let here = place(&open(), &keys);
        let kind = async |last: Option<&str>| expect_where(&open(), &keys, &made.id, last).await.map_err(|e| e.kind()).err();
        assert_eq!(kind(Some(&here)).await, None);
        // A store with other prefixes only is there, and ours is not in it.
        assert_eq!(expect_where(&open(), &Keys::new("defualt"), &made.id, None).await.unwrap_err().kind(), Kind::Usage);
        for empty in [false, true] {
            std::fs::rename(&dir, tmp.path().join("away")).unwrap();
            if empty {
                std::fs::create_dir(&dir).unwrap();
            }
            assert_eq!(kind(Some(&here)).await, Some(Kind::Unavailable));
            assert_eq!(kind(None).await, Some(Kind::Unavailable));
            let e = expect_where(&open(), &keys, &made.id, Some("file:///elsewhere")).await.unwrap_err();
            assert!(e.kind() == Kind::Usage && e.to_string().contains("it was last at file:///elsewhere"), "{e}");
            assert_eq!(dir.exists(), empty, "looking made a store");
            let _ = std::fs::remove_dir(&dir);
            std::fs::rename(tmp.path().join("away"), &dir).unwrap();
        }
        assert_eq!(kind(Some("file:///elsewhere")).await, None);
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
