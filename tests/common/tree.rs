//! Trees: real source trees with odd additions, and an exact comparison.

use super::sys;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What one path of a tree is; two trees are the same when all of these are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type and permission bits.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Length of a file.
    pub size: u64,
    /// Hash of a file's bytes, target of a link.
    pub content: String,
    /// `user.*` attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads the whole tree below `root`, which itself is not in it.
#[track_caller]
pub fn scan(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut out = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        for e in fs::read_dir(root.join(&rel)).unwrap_or_else(|e| panic!("listing {}: {e}", root.join(&rel).display())) {
            let e = e.unwrap_or_else(|e| panic!("listing {}: {e}", rel.display()));
            let rel = rel.join(e.file_name());
            if e.file_type().unwrap().is_dir() {
                todo.push(rel.clone());
            }
            let twice = out.insert(rel.clone(), node(&root.join(&rel)));
            assert!(twice.is_none(), "listed twice: {}", rel.display());
        }
    }
    out
}

#[track_caller]
fn node(path: &Path) -> Node {
    let fail = |what: &str, e: std::io::Error| -> ! { panic!("{what} {}: {e}", path.display()) };
    let m = fs::symlink_metadata(path).unwrap_or_else(|e| fail("stat", e));
    let content = if m.is_file() {
        let mut h = blake3::Hasher::new();
        let mut f = fs::File::open(path).unwrap_or_else(|e| fail("open", e));
        let n = std::io::copy(&mut f, &mut h).unwrap_or_else(|e| fail("read", e));
        assert!(n == m.len(), "{}: stat says {} bytes, reading gave {n}", path.display(), m.len());
        h.finalize().to_hex().to_string()
    } else if m.is_symlink() {
        fs::read_link(path).unwrap_or_else(|e| fail("readlink", e)).to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let mut xattrs = BTreeMap::new();
    if m.is_file() || m.is_dir() {
        for name in sys::list_xattr(path).unwrap_or_else(|e| fail("listxattr", e)) {
            if name.starts_with("user.") && !name.starts_with("user.tcfs.") {
                let value = sys::get_xattr(path, &name).unwrap_or_else(|e| fail("getxattr", e));
                xattrs.insert(name, value);
            }
        }
    }
    let size = if m.is_file() { m.len() } else { 0 };
    Node { mode: m.mode(), mtime: (m.mtime(), m.mtime_nsec()), size, content, xattrs }
}

/// Panics with the first differences of two trees, if there are any.
#[track_caller]
pub fn assert_same(what: &str, want: &BTreeMap<PathBuf, Node>, have: &BTreeMap<PathBuf, Node>) {
    let mut lines = vec![];
    for (p, w) in want {
        match have.get(p) {
            None => lines.push(format!("missing: {}", p.display())),
            Some(h) if h != w => lines.push(format!("differs: {}\n    want {w:?}\n    have {h:?}", p.display())),
            Some(_) => {}
        }
    }
    lines.extend(have.keys().filter(|p| !want.contains_key(*p)).map(|p| format!("too much: {}", p.display())));
    let shown = lines.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(lines.is_empty(), "{what}: {} of {} paths differ\n{shown}", lines.len(), want.len());
}

/// Copies crates from the local cargo registry into `to` until at least `files` files are there, then adds odd things.
///
/// Where the registry has fewer, it is copied again under another name: names and contents stay those of real sources.
pub fn sources(to: &Path, files: usize) {
    let registry = registry();
    let mut have = 0;
    for round in 0.. {
        let mut crates: Vec<PathBuf> = fs::read_dir(&registry).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
        crates.sort();
        // Sorted by name the first ones are all of one kind; a stride mixes large and small.
        let mixed = (0..crates.len()).map(|i| crates[(i * 7919) % crates.len()].clone());
        let before = have;
        for c in mixed {
            if have >= files {
                odd(to);
                return;
            }
            let dest = to.join(format!("r{round}")).join(c.file_name().unwrap());
            if dest.exists() {
                continue;
            }
            fs::create_dir_all(dest.parent().unwrap()).unwrap();
            super::cli::sh(to, "cp -a -- \"$1\" \"$2\"", &[c.as_os_str(), dest.as_os_str()]).ok();
            have += super::mounted::walk_files(&dest).len();
        }
        assert!(have > before, "the cargo registry under {} has no sources", registry.display());
    }
}

fn registry() -> PathBuf {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cargo"));
    let src = cargo.join("registry/src");
    let mut found: Vec<PathBuf> =
        fs::read_dir(&src).unwrap_or_else(|e| panic!("{}: {e}; cargo fetch fills it", src.display())).map(|e| e.unwrap().path()).collect();
    found.sort();
    found.into_iter().next().unwrap_or_else(|| panic!("{} is empty; cargo fetch fills it", src.display()))
}

/// Names that a program forgets about; all are valid UTF-8 in NFC.
pub fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        " leading and trailing ",
        "two\nlines",
        "tab\there",
        "quote'single",
        "quote\"double",
        "back\\slash",
        "star*",
        "que?stion",
        "semi;colon",
        "amp&ersand",
        "dollar$HOME",
        "`tick`",
        "-rf",
        "--help",
        "~",
        "#hash",
        "%41",
        "a:b",
        "pipe|pipe",
        "<angle>",
        "[bracket]",
        "{brace}",
        "CON",
        "nul.txt",
        "...",
        "..x",
        ".hidden",
        "trailing.",
        "\u{1}control\u{7f}",
        "naïve",
        "日本語のファイル",
        "Ελληνικά",
        "עברית",
        "🦀🚀",
        "e\u{301}x-NFC-changes-this",
        "\u{202e}rtl",
        "zero\u{200b}width",
        "UPPER",
        "upper",
        "Upper",
        "a.tar.gz",
        "plan.conflict-yoga.md",
        "index",
        "%2e%2e",
        "c\u{327}",
    ]
    .iter()
    .map(|n| unicode_normalization::UnicodeNormalization::nfc(*n).collect())
    .collect();
    names.push("x".repeat(255));
    names.push("ü".repeat(127));
    names.push("🦀".repeat(63));
    names
}

/// Puts odd names, modes, links, times, attributes and sizes into `to/odd`.
pub fn odd(to: &Path) {
    let dir = to.join("odd");
    fs::create_dir_all(dir.join("names")).unwrap();
    for (i, n) in odd_names().iter().enumerate() {
        fs::write(dir.join("names").join(n), format!("content {i} of {n:?}\n")).unwrap();
        fs::create_dir(dir.join("names").join(format!("d{i}"))).unwrap();
        fs::write(dir.join("names").join(format!("d{i}")).join(n), n).unwrap();
    }
    fs::create_dir_all(dir.join("empty/dirs/deep/down")).unwrap();
    for i in 0..50 {
        fs::write(dir.join(format!("empty-{i}")), b"").unwrap();
    }
    for mode in [0o400, 0o444, 0o600, 0o644, 0o666, 0o700, 0o755, 0o777, 0o111, 0o4755, 0o2755, 0o1644] {
        let f = dir.join(format!("mode-{mode:o}"));
        fs::write(&f, "#!/bin/sh\necho ok\n").unwrap();
        fs::set_permissions(&f, fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, target) in [
        ("to-file", "mode-644"),
        ("to-dir", "empty"),
        ("dangling", "no/such/place"),
        ("up", "../.."),
        ("absolute", "/etc/hostname"),
        ("loop", "loop"),
    ] {
        symlink(target, dir.join(name)).unwrap();
    }
    symlink("x".repeat(1024), dir.join("long-target")).unwrap();
    symlink(OsStr::from_bytes("ziel-ü-日本".as_bytes()), dir.join("unicode-target")).unwrap();
    for (i, size) in [1usize, 4095, 4096, 4097, 65_536, 262_143, 1 << 20, (1 << 20) + 1, 5 << 20].into_iter().enumerate() {
        let mut bytes = vec![0u8; size];
        fastrand::Rng::with_seed(i as u64).fill(&mut bytes);
        fs::write(dir.join(format!("size-{size}")), bytes).unwrap();
    }
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 9_000_000).unwrap();
    for (name, value) in [("user.comment", &b"with spaces and \xff bytes"[..]), ("user.empty", b""), ("user.long", &[7u8; 3000])] {
        sys::set_xattr(&dir.join("mode-644"), name, value, 0).unwrap();
    }
    sys::set_xattr(&dir.join("empty"), "user.on-a-directory", b"yes", 0).unwrap();
    for (name, at) in
        [("size-1", (0, 0)), ("size-4095", (1, 1)), ("size-4096", (2_000_000_000, 999_999_999)), ("dangling", (1_234_567_890, 123_456_789))]
    {
        sys::set_times(&dir.join(name), sys::OMIT, at).unwrap();
    }
    sys::set_times(&dir.join("empty/dirs"), sys::OMIT, (1_000_000_000, 5)).unwrap();
}
