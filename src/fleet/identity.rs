//! Who this machine is: the identity file, names and ids of devices.
//!
//! Must: one identity for each state directory, in one file that only its owner can read (id, name, Ed25519 key).
//! Must: an id is never used again; every enrolment, and a machine that finds itself cloned, takes a new one.
//! Not here: what the fleet knows of its devices (`registry`), noticing a clone (`link`).

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// File name within the state directory.
pub const FILE: &str = "identity.json";
/// Longest device name, in bytes.
pub const NAME_MAX: usize = 32;

/// A device's own view of itself.
#[derive(Clone)]
pub struct Identity {
    /// `<name>-<8 hex>`.
    pub id: String,
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Seconds since 1970.
    pub enrolled_at: i64,
    key: SigningKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, {})", self.id, self.name)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.name, self.enrolled_at, self.key.to_bytes()) == (&other.id, &other.name, other.enrolled_at, other.key.to_bytes())
    }
}

/// As it stands in the file and, so that a change of id is one transaction with what follows from it, in the database.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    id: String,
    name: String,
    secret_key: String,
    enrolled_at: i64,
}

const FORMAT: u32 = 1;

/// Checks a name.
///
/// Errors: `Usage` saying what a name may be.
pub fn check_name(name: &str) -> Result<()> {
    let tame = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if tame && !name.is_empty() && name.len() <= NAME_MAX && name.bytes().any(|b| b != b'-') {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::new(Kind::Usage, format!("{shown:?} is no device name"))
        .hint(format!("a name has 1 to {NAME_MAX} of the characters a-z, 0-9 and `-`, for example {:?}", name_from_host(name))))
}

/// The first label of a host name as a device name: lower case, other characters than `[a-z0-9]` as `-`.
pub fn name_from_host(host: &str) -> String {
    let label = host.split('.').find(|l| !l.is_empty()).unwrap_or("").to_lowercase();
    let mut out = String::new();
    for c in label.chars() {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        if c != '-' || !out.ends_with('-') {
            out.push(c);
        }
    }
    out.truncate(NAME_MAX);
    let out = out.trim_matches('-');
    if out.is_empty() { "device".to_owned() } else { out.to_owned() }
}

/// The device name of this machine when none was configured.
pub fn default_name() -> String {
    name_from_host(&rustix::system::uname().nodename().to_string_lossy())
}

/// The name with a number when it is taken: `yoga`, `yoga-2`, `yoga-3` …, cut to fit.
pub fn numbered(name: &str, n: usize) -> String {
    if n < 2 {
        return name.to_owned();
    }
    let tail = format!("-{n}");
    let keep = name.len().min(NAME_MAX - tail.len());
    format!("{}{tail}", &name[..keep])
}

impl Identity {
    /// A new identity: fresh id, fresh key.
    ///
    /// Errors: `Usage` for a bad name.
    pub fn create(name: &str, clock: &dyn Clock) -> Result<Identity> {
        check_name(name)?;
        let mut seed = [0u8; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&clock.random().to_le_bytes());
        }
        Ok(Identity {
            id: format!("{name}-{:08x}", clock.random() as u32),
            name: name.to_owned(),
            enrolled_at: clock.now_ns().div_euclid(1_000_000_000),
            key: SigningKey::from_bytes(&seed),
        })
    }

    /// The same device under another name; the id stays.
    pub fn renamed(&self, name: &str) -> Result<Identity> {
        check_name(name)?;
        Ok(Identity { name: name.to_owned(), ..self.clone() })
    }

    /// Public key, base64.
    pub fn public_key(&self) -> String {
        BASE64.encode(self.key.verifying_key().to_bytes())
    }

    /// Signs `text`; base64.
    pub fn sign(&self, text: &[u8]) -> String {
        BASE64.encode(self.key.sign(text).to_bytes())
    }

    /// The text of the identity file.
    pub fn to_json(&self) -> Result<String> {
        let stored = Stored {
            format: FORMAT,
            id: self.id.clone(),
            name: self.name.clone(),
            secret_key: BASE64.encode(self.key.to_bytes()),
            enrolled_at: self.enrolled_at,
        };
        serde_json::to_string_pretty(&stored).map_err(|e| Error::new(Kind::Internal, "writing the identity").source(e))
    }

    /// Reads [`Identity::to_json`]. `what` names the source in errors.
    pub fn from_json(text: &str, what: &str) -> Result<Identity> {
        let damaged = |why: String| {
            Error::new(Kind::Corrupt, format!("reading {what}: {why}"))
                .hint("restore the file from a backup, or remove it and enrol this machine anew: tcfs device enroll --replace")
        };
        let s: Stored = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if s.format != FORMAT {
            return Err(Error::new(Kind::Unsupported, format!("reading {what}: it has format {}, this tcfs knows {FORMAT}", s.format))
                .hint("it was written by a newer tcfs: use that one"));
        }
        check_name(&s.name).map_err(|e| damaged(e.to_string()))?;
        let tame = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if s.id.is_empty() || s.id.len() > 64 || !s.id.bytes().all(tame) {
            return Err(damaged("its id is no device id".into()));
        }
        let key = BASE64.decode(&s.secret_key).ok().and_then(|k| <[u8; 32]>::try_from(k).ok());
        let key = key.ok_or_else(|| damaged("its key is not 32 bytes in base64".into()))?;
        Ok(Identity { id: s.id, name: s.name, enrolled_at: s.enrolled_at, key: SigningKey::from_bytes(&key) })
    }

    /// Reads the identity of a state directory.
    ///
    /// Errors: `NotEnrolled` if there is none, `Corrupt` for a damaged one.
    pub fn load(state: &Path) -> Result<Identity> {
        let path = state.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Identity::from_json(&text, &path.display().to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::new(Kind::NotEnrolled, format!("this machine has no identity yet ({} does not exist)", path.display()))
                    .hint("enrol it: tcfs device enroll --name NAME (`tcfs mount` does it by itself)"))
            }
            Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
        }
    }

    /// Writes the file, mode 0600, in the place of an older one at once or not at all.
    pub fn save(&self, state: &Path) -> Result<()> {
        let path = state.join(FILE);
        let temp = state.join(format!("{FILE}.new"));
        let doing = |e| Error::io(format!("writing {}", path.display()), e);
        std::fs::create_dir_all(state).map_err(doing)?;
        // A temporary left by a crash may have other permissions: start from nothing.
        if let Err(e) = std::fs::remove_file(&temp)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(doing(e));
        }
        let mut f = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp).map_err(doing)?;
        f.write_all(self.to_json()?.as_bytes()).map_err(doing)?;
        f.sync_all().map_err(doing)?;
        std::fs::rename(&temp, &path).map_err(doing)?;
        std::fs::File::open(state).and_then(|d| d.sync_all()).map_err(doing)
    }
}

/// Another device's key, by which its signatures are known.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads [`Identity::public_key`]; none for what is no key.
    pub fn parse(base64: &str) -> Option<PublicKey> {
        let raw = <[u8; 32]>::try_from(BASE64.decode(base64).ok()?).ok()?;
        VerifyingKey::from_bytes(&raw).ok().map(PublicKey)
    }

    /// Whether the device signed this text.
    pub fn signed(&self, text: &[u8], signature: &str) -> bool {
        let raw = BASE64.decode(signature).ok().and_then(|s| Signature::from_slice(&s).ok());
        raw.is_some_and(|s| self.0.verify_strict(text, &s).is_ok())
    }
}

/// The identity as everybody in the process holds it: it changes while running when this machine turns out to be a
/// clone. Take it anew for each transaction, inside the transaction.
pub struct Me {
    now: RwLock<Arc<Identity>>,
}

impl Me {
    /// A shared identity.
    pub fn new(identity: Identity) -> Arc<Me> {
        Arc::new(Me { now: RwLock::new(Arc::new(identity)) })
    }

    /// As it is now.
    pub fn get(&self) -> Arc<Identity> {
        self.now.read().clone()
    }

    pub(super) fn set(&self, identity: Identity) {
        *self.now.write() = Arc::new(identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_come_from_the_first_label_of_the_host_name() {
        for (host, name) in [
            ("yoga", "yoga"),
            ("Yoga.example.org", "yoga"),
            ("Jess's MacBook Pro.local", "jess-s-macbook-pro"),
            ("", "device"),
            ("...", "device"),
            ("---", "device"),
            ("été", "t"),
            ("x".repeat(60).as_str(), "x".repeat(32).as_str()),
        ] {
            assert_eq!(name_from_host(host), name, "{host:?}");
            check_name(&name_from_host(host)).unwrap();
        }
        for bad in ["", "Yoga", "a b", "é", "-", &"x".repeat(33)] {
            let e = check_name(bad).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage);
            assert!(e.hint_text().unwrap().contains("a-z"));
        }
        assert_eq!(numbered("yoga", 1), "yoga");
        assert_eq!(numbered(&"x".repeat(32), 12), format!("{}-12", "x".repeat(29)));
    }

    #[test]
    fn an_identity_comes_back_and_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let e = Identity::load(dir.path()).unwrap_err();
        assert_eq!(e.kind(), Kind::NotEnrolled);
        let clock = ManualClock::new(5_000_000_000, 1);
        let me = Identity::create("yoga", &*clock).unwrap();
        assert!(me.id.starts_with("yoga-") && me.id.len() == 13, "{}", me.id);
        me.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), me);
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(Identity::create("yoga", &*clock).unwrap().id, me.id);
        assert!(!format!("{me:?}").contains(&BASE64.encode(me.key.to_bytes())));
    }

    #[test]
    fn a_signature_is_of_one_device_and_one_text() {
        let clock = ManualClock::new(0, 1);
        let (a, b) = (Identity::create("ann", &*clock).unwrap(), Identity::create("bob", &*clock).unwrap());
        let key = PublicKey::parse(&a.public_key()).unwrap();
        assert!(key.signed(b"text", &a.sign(b"text")));
        for (text, signature) in
            [(&b"texT"[..], a.sign(b"text")), (b"text", b.sign(b"text")), (b"text", String::new()), (b"text", "AAAA".into())]
        {
            assert!(!key.signed(text, &signature));
        }
        assert!(PublicKey::parse("AAAA").is_none() && PublicKey::parse("?").is_none());
    }

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{}", "{\"format\":1,\"id\":\"../x\",\"name\":\"a\",\"secret_key\":\"\",\"enrolled_at\":0}"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let e = Identity::load(dir.path()).unwrap_err();
            assert_eq!(e.kind(), Kind::Corrupt, "{text}");
            assert!(e.to_string().contains(FILE) && e.hint_text().unwrap().contains("--replace"), "{e}");
        }
    }
}
