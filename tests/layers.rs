//! The sources themselves: in which direction layers use each other, and who may use which outside crate.
//!
//! The direction is that of the table in `src/lib.rs`, which is read here, so that the two cannot differ. What counts
//! as a use is the beginning of a path (`crate::vfs::…`, `super::super::vfs`, `fuser::…`), in code and in tests inside
//! the sources alike; comments and strings are passed over. Names that a `use` or `mod` brings into a file are not taken
//! for crates of the same name.
#![allow(clippy::unwrap_used)] // a test ends where something is not as it must be

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Outside crates with owners: the only files, or directories (with `/`), that may name them, below `src/`.
const OWNED: &[(&str, &[&str])] = &[
    ("fuser", &["mount/fuse.rs", "mount/fuse/"]),
    ("nfs3_types", &["mount/nfs.rs", "mount/nfs/"]),
    ("aws_sdk_s3", &["store/s3.rs", "store/s3/"]),
    ("aws_smithy_http_client", &["store/s3.rs"]),
    ("async_nats", &["fleet/nats.rs", "fleet/nats/"]),
    ("mimalloc", &["main.rs", "bin/tcfsd.rs"]),
    ("libmimalloc_sys", &["daemon/memory.rs"]),
    ("notify", &["store/watch.rs"]),
    ("rusqlite", &["state/"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/completions.rs"]),
    ("indicatif", &["cli/output.rs"]),
    ("sd_notify", &["daemon/notify.rs"]),
    ("toml", &["daemon/config/"]),
    ("tracing_subscriber", &["daemon/log.rs"]),
    ("ed25519_dalek", &["fleet/identity.rs"]),
    ("fastcdc", &["content/chunker.rs"]),
    ("zstd", &["content/codec.rs"]),
    ("unicode_normalization", &["model/path.rs"]),
    ("globset", &["vfs/readers.rs", "daemon/core/find.rs"]),
    ("ignore", &["vfs/rules.rs", "vfs/ignores.rs"]),
    ("getrandom", &["clock.rs"]),
    ("fastrand", &["store/s3.rs", "store/fault.rs", "fleet/backoff.rs"]),
    ("lru", &["content/known.rs", "fleet/tokens.rs", "vfs/cache.rs", "vfs/control/", "vfs/readers.rs"]),
    ("dashmap", &["vfs/mod.rs", "vfs/ignores.rs", "vfs/control/", "mount/fuse.rs", "mount/fuse/passthrough.rs"]),
    ("postcard", &["state/", "model/ranges.rs"]),
    ("base64", &["fleet/identity.rs", "state/inode.rs", "vfs/attr.rs"]),
    ("similar", &["daemon/core/diff.rs"]),
    ("ratatui", &["tui/"]),
    ("rmcp", &["mcp/"]),
    (
        "schemars",
        &["mcp/", "daemon/protocol/", "store/count.rs", "model/activity.rs", "daemon/config/mod.rs", "cli/printed.rs", "cli/schema.rs"],
    ),
    ("clap_mangen", &["cli/man.rs"]),
    ("sha1", &["fleet/git/index.rs"]),
    ("time", &["cli/", "tui/", "human.rs"]),
];

/// Outside crates that any layer but the model may use.
const COMMON: &[&str] =
    &["serde", "serde_json", "blake3", "tokio", "futures_util", "bytes", "async_trait", "parking_lot", "tracing", "rustix", "libc"];

/// In the manifest for a feature of a crate that another one uses; never named.
const UNNAMED: &[&str] = &["aws_credential_types"];

/// Outside crates that the model may use, besides `std`.
const IN_MODEL: &[&str] = &["schemars", "serde", "serde_json", "blake3", "unicode_normalization", "postcard"];

/// Parts of `std` that the model may not use: it does no I/O and has no clock.
const NOT_IN_MODEL: &[&str] = &["fs", "net", "env", "process", "thread", "time", "os", "io"];

/// Modules that belong to no layer: every layer may use them.
const EVERYWHERE: &[&str] = &["error", "clock", "human", "sys"];

// ------------------------------------------------------------------------------------------------ reading sources

/// A source file: where it lies below `src/`, and its paths.
struct Source {
    /// `vfs/open.rs`.
    file: String,
    paths: Vec<Seen>,
}

/// A path in a source: up to its first two names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    line: usize,
    /// It begins at the root of this crate.
    local: bool,
    first: String,
    second: String,
}

/// A name or a single character, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    line: usize,
    text: String,
}

/// Splits a source into names and punctuation; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let s: Vec<char> = text.chars().collect();
    let at = |i: usize| s.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut i, mut line) = (Vec::new(), 0, 1);
    while i < s.len() {
        let begin = i;
        match s[i] {
            '/' if at(i + 1) == '/' => {
                while i < s.len() && s[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= s.len() {
                        break;
                    }
                }
            }
            '"' => i = string_end(&s, i),
            // 'x' and '\n' are characters, 'a without a second quote is a lifetime.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < s.len() && s[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            '\'' => {
                i += 1;
                while word(at(i)) {
                    i += 1;
                }
            }
            c if word(c) => {
                while word(at(i)) {
                    i += 1;
                }
                let text: String = s[begin..i].iter().collect();
                let hashes = s[i..].iter().take_while(|c| **c == '#').count();
                let raw = matches!(text.as_str(), "r" | "br" | "cr") && at(i + hashes) == '"';
                if raw {
                    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    i += hashes + 1;
                    while i < s.len() && !s[i..].starts_with(&end) {
                        i += 1;
                    }
                    i += end.len();
                } else if !(matches!(text.as_str(), "b" | "c") && at(i) == '"') {
                    out.push(Token { line, text });
                }
            }
            c if c.is_whitespace() => i += 1,
            c => {
                out.push(Token { line, text: c.to_string() });
                i += 1;
            }
        }
        line += s[begin..i.min(s.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// Behind the string that begins at `i`.
fn string_end(s: &[char], mut i: usize) -> usize {
    i += 1;
    while i < s.len() && s[i] != '"' {
        i += if s[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The modules a file stands for: `vfs/open.rs` → 2, `vfs/mod.rs` → 1, `lib.rs` → 0.
fn depth(file: &str) -> usize {
    let parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    parts.len() - usize::from(matches!(parts.last(), Some(&"mod" | &"lib" | &"main")))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// All paths of a source, those of a `use` with braces taken apart, and the names that the file brings in itself.
fn paths(file: &str, text: &str) -> (Vec<Seen>, BTreeSet<String>) {
    let t = tokens(text);
    let is = |i: usize, what: &str| t.get(i).is_some_and(|t| t.text == what);
    let sep = |i: usize| is(i, ":") && is(i + 1, ":");
    let (mut out, mut own) = (Vec::new(), BTreeSet::new());
    let mut i = 0;
    while i < t.len() {
        if is(i, "mod") && t.get(i + 1).is_some_and(|n| is_name(&n.text)) {
            own.insert(t[i + 1].text.clone());
            i += 2;
        } else if is(i, "use") {
            let mut end = i + 1;
            while end < t.len() && t[end].text != ";" {
                end += 1;
            }
            for leaf in leaves(&t[i + 1..end]) {
                let names: Vec<&str> = leaf.iter().map(|t| t.text.as_str()).collect();
                // `use notify::Watcher` brings in `Watcher`, `use super::notify` and `use a as notify` bring in `notify`.
                let brings = names.iter().rposition(|n| *n != "self" && *n != "*").filter(|at| *at > 0);
                own.extend(brings.map(|at| names[at].to_owned()));
                out.extend(seen(file, &leaf[..names.iter().position(|n| *n == "as").unwrap_or(names.len())]));
            }
            i = end;
        } else if is_name(&t[i].text) && sep(i + 1) {
            // The whole path, if nothing stands before it: `a::b::c`.
            let mut path = vec![t[i].clone()];
            let mut end = i + 1;
            while sep(end) && t.get(end + 2).is_some_and(|n| is_name(&n.text)) {
                path.push(t[end + 2].clone());
                end += 3;
            }
            if !(i >= 2 && sep(i - 2) && t.get(i.wrapping_sub(3)).is_some_and(|b| is_name(&b.text) || b.text == ">")) {
                out.extend(seen(file, &path));
            }
            i = end;
        } else {
            i += 1;
        }
    }
    (out, own)
}

/// The paths in what follows `use`, one for each name at the ends of its braces.
fn leaves(t: &[Token]) -> Vec<Vec<Token>> {
    let (mut out, mut open, mut now): (Vec<Vec<Token>>, Vec<Vec<Token>>, Vec<Token>) = Default::default();
    let mut closed = false;
    for token in t {
        match token.text.as_str() {
            "{" => open.push(now.clone()),
            "," | "}" => {
                if !std::mem::replace(&mut closed, token.text == "}") && !now.is_empty() {
                    out.push(now.clone());
                }
                now = if token.text == "}" { open.pop().unwrap_or_default() } else { open.last().cloned().unwrap_or_default() };
            }
            ":" => {}
            _ => {
                closed = false;
                now.push(token.clone());
            }
        }
    }
    if !closed && !now.is_empty() {
        out.push(now);
    }
    out
}

/// What a path begins with, `super` taken apart by where the file lies. None: within its own module.
fn seen(file: &str, path: &[Token]) -> Option<Seen> {
    let name = |i: usize| path.get(i).map_or(String::new(), |t| t.text.clone());
    let supers = path.iter().take_while(|t| t.text == "super").count();
    let line = path[0].line;
    match path[0].text.as_str() {
        "crate" | "tcfs" => Some(Seen { line, local: true, first: name(1), second: name(2) }),
        "self" | "Self" => None,
        "super" if supers < depth(file) => {
            // Within the layer; a second layer cannot be named so, but a part of the own one can.
            let here: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
            (supers + 1 == depth(file)).then(|| Seen { line, local: true, first: here[0].to_owned(), second: name(supers) })
        }
        "super" => Some(Seen { line, local: true, first: name(supers), second: name(supers + 1) }),
        _ => Some(Seen { line, local: false, first: name(0), second: name(1) }),
    }
}

fn source(file: &str, text: &str) -> Source {
    let (mut paths, own) = paths(file, text);
    paths.retain(|p| p.local || !own.contains(&p.first) || is_crate_root(p, text));
    Source { file: file.to_owned(), paths }
}

/// `use fuser::fuser` and the like: a crate all the same.
fn is_crate_root(p: &Seen, text: &str) -> bool {
    text.contains(&format!("use {}::", p.first))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut out, mut todo) = (Vec::new(), vec![root.clone()]);
    while let Some(dir) = todo.pop() {
        for e in std::fs::read_dir(dir).unwrap() {
            let path: PathBuf = e.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                out.push(source(&file, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    out.sort_by(|a, b| a.file.cmp(&b.file));
    out
}

// ------------------------------------------------------------------------------------------------ the rules

/// What a layer may use: layers by name, and parts of them that are taken out again.
#[derive(Debug, Default, PartialEq, Eq)]
struct May {
    use_: BTreeSet<String>,
    but_not: BTreeSet<String>,
}

/// Reads the table of the map: `| [`vfs`] | … | `fleet`, `content` |`.
fn table(lib: &str) -> BTreeMap<String, May> {
    let rows: Vec<Vec<&str>> = lib
        .lines()
        .filter_map(|l| l.strip_prefix("//! | [`"))
        .map(|l| l.trim_end().trim_end_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<String> = rows.iter().map(|r| r[0].trim_end_matches(['`', ']']).to_owned()).collect();
    let mut out = BTreeMap::new();
    for (n, row) in rows.iter().enumerate() {
        let mut may = May::default();
        match row[2] {
            "nothing" => {}
            "all below" => may.use_.extend(names[n + 1..].iter().cloned()),
            list => {
                for item in list.split(", ") {
                    let (yes, no) = item.split_once(" but not ").map_or((item, None), |(y, n)| (y, Some(n)));
                    may.use_.insert(yes.trim_matches('`').to_owned());
                    may.but_not.extend(no.map(|n| n.trim_matches('`').to_owned()));
                }
            }
        }
        out.insert(names[n].clone(), may);
    }
    out
}

/// Uses that go up, sideways or around.
fn direction(table: &BTreeMap<String, May>, sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for s in sources {
        let layer = s.file.split(['/', '.']).next().unwrap_or_default();
        let Some(may) = table.get(layer) else { continue };
        for p in s.paths.iter().filter(|p| p.local) {
            let whole = format!("{}::{}", p.first, p.second);
            let other = table.contains_key(&p.first) && p.first != layer;
            if other && (!may.use_.contains(&p.first) || may.but_not.contains(&whole)) {
                wrong.push(format!("src/{}:{}: {layer} uses {whole}", s.file, p.line));
            }
            let known = table.contains_key(&p.first) || EVERYWHERE.contains(&p.first.as_str());
            // Names at the root of the crate (`crate::Error`) are those of `error`.
            if !known && p.first.starts_with(char::is_lowercase) {
                wrong.push(format!("src/{}:{}: {} is in no layer of the table in src/lib.rs", s.file, p.line, p.first));
            }
        }
    }
    wrong
}

/// Outside crates named where they must not be.
fn ownership(crates: &BTreeSet<String>, sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for s in sources {
        for p in s.paths.iter().filter(|p| !p.local) {
            let at = format!("src/{}:{}", s.file, p.line);
            let owners = OWNED.iter().find(|(c, _)| *c == p.first).map(|(_, files)| *files);
            let mine = |o: &str| s.file == o || o.ends_with('/') && s.file.starts_with(o);
            if let Some(owners) = owners.filter(|all| !all.iter().any(|o| mine(o))) {
                wrong.push(format!("{at}: {} belongs to {}", p.first, owners.join(", ")));
            }
            let model = s.file.starts_with("model/");
            if model && crates.contains(&p.first) && !IN_MODEL.contains(&p.first.as_str()) {
                wrong.push(format!("{at}: the model is pure, it may not use {}", p.first));
            }
            if model && p.first == "std" && NOT_IN_MODEL.contains(&p.second.as_str()) {
                wrong.push(format!("{at}: the model is pure, it may not use std::{}", p.second));
            }
        }
    }
    wrong
}

/// Names in `[dependencies]`, also in those of one system, as code writes them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let sections = manifest.split("\n[").filter_map(|s| s.split_once("]\n"));
    let of_all = |head: &str| head == "dependencies" || head.starts_with("target.") && head.ends_with(".dependencies");
    let lines = sections.filter(|(head, _)| of_all(head)).flat_map(|(_, body)| body.lines());
    let names = lines.filter_map(|l| l.split_once(" = ")).map(|(n, _)| n.trim());
    names.filter(|n| !n.starts_with('#')).map(|n| n.replace('-', "_")).collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

// ------------------------------------------------------------------------------------------------ the checks

#[test]
fn arrows_between_layers_point_down_only() {
    let lib = read("src/lib.rs");
    let table = table(&lib);
    let modules: BTreeSet<String> =
        lib.lines().filter_map(|l| Some(l.strip_prefix("pub mod ")?.trim_end_matches(';').to_owned())).collect();
    let named: BTreeSet<String> = table.keys().cloned().chain(EVERYWHERE.iter().map(|m| m.to_string())).collect();
    assert_eq!(named, modules, "the table in src/lib.rs does not name every module");
    let all = sources();
    let local = all.iter().flat_map(|s| &s.paths).filter(|p| p.local).count();
    assert!(all.len() > 100 && local > 500, "not all sources were read: {} files, {local} paths", all.len());
    let wrong = direction(&table, &all);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_itself_has_no_circle() {
    let table = table(&read("src/lib.rs"));
    for (layer, may) in &table {
        let (mut seen, mut todo) = (BTreeSet::new(), Vec::from_iter(&may.use_));
        while let Some(next) = todo.pop() {
            assert!(next != layer, "{layer} may use itself by way of others");
            if seen.insert(next) {
                todo.extend(&table[next].use_);
            }
        }
    }
}

#[test]
fn every_outside_crate_stays_with_its_owner() {
    let crates = dependencies(&read("Cargo.toml"));
    let all = sources();
    let wrong = ownership(&crates, &all);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let listed: BTreeSet<String> =
        OWNED.iter().map(|(c, _)| *c).chain(COMMON.iter().copied()).chain(UNNAMED.iter().copied()).map(str::to_owned).collect();
    assert_eq!(listed, crates, "the lists here and [dependencies] of Cargo.toml differ");
    let used: BTreeSet<&str> = all.iter().flat_map(|s| &s.paths).filter(|p| !p.local).map(|p| p.first.as_str()).collect();
    let unused: Vec<&String> = crates.iter().filter(|c| !UNNAMED.contains(&c.as_str()) && !used.contains(c.as_str())).collect();
    assert!(unused.is_empty(), "in Cargo.toml and not in the sources: {unused:?}");
    for (name, owners) in OWNED {
        for o in *owners {
            let there = all.iter().any(|s| (s.file == *o || s.file.starts_with(o)) && s.paths.iter().any(|p| p.first == *name));
            assert!(there, "{o} does not use {name} any more");
        }
    }
}

/// Names that a toolchain for macOS does not know: of calls, constants and modules.
const LINUX_ONLY: &[&str] = &[
    "memfd_create",
    "syncfs",
    "copy_file_range",
    "ioctl_ficlone",
    "fallocate",
    "FallocateFlags",
    "F_SETLEASE",
    "prctl",
    "TMPFILE",
    "O_TMPFILE",
    "O_PATH",
    "O_DIRECT",
    "f_type",
    "inotify",
    "epoll",
    "eventfd",
    "timerfd",
    "signalfd",
    "fanotify",
    "statx",
    "openat2",
    "renameat2",
    "linux",
    "UnmountFlags",
    "MountFlags",
    "sendfile",
    "gettid",
    "SYS_gettid",
    "io_uring",
];

/// Where they may stand: files that are left out on macOS, and items of these files that are.
const OF_LINUX: &[&str] = &["sys/linux.rs", "mount/fuse.rs", "mount/fuse/", "daemon/mounts/tests.rs"];

/// Files with items that are left out on macOS, and the names in them.
const IN_PART: &[(&str, &[&str])] = &[
    ("daemon/mounts.rs", &["UnmountFlags"]),
    ("daemon/core/front.rs", &["UnmountFlags"]),
    // Our own functions of these names.
    ("sys.rs", &["fallocate"]),
    ("sys/macos.rs", &["fallocate"]),
    ("state/reserve.rs", &["fallocate"]),
    ("vfs/write.rs", &["fallocate"]),
];

#[test]
fn what_only_linux_has_stands_where_it_is_left_out_elsewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut wrong, mut found) = (Vec::new(), BTreeSet::new());
    for s in sources() {
        let of_linux = OF_LINUX.iter().any(|o| s.file == *o || o.ends_with('/') && s.file.starts_with(o));
        let mine: &[&str] = IN_PART.iter().find(|(f, _)| s.file == *f).map_or(&[], |(_, names)| names);
        for t in tokens(&std::fs::read_to_string(root.join(&s.file)).unwrap()) {
            if LINUX_ONLY.contains(&t.text.as_str()) {
                if !of_linux && !mine.contains(&t.text.as_str()) {
                    wrong.push(format!("src/{}:{}: {} is not to be had on macOS; see src/sys.rs", s.file, t.line, t.text));
                }
                found.insert((s.file.clone(), t.text));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for (file, names) in IN_PART {
        assert!(names.iter().all(|n| found.contains(&((*file).to_owned(), (*n).to_owned()))), "{file} does not have all of {names:?}");
    }
}

// ------------------------------------------------------------------------------------------------ the checks can fail

const MAP: &str = "//! | layer | what it is | may use |\n//! |---|---|---|\n//! | [`cli`] | x | `daemon` but not `daemon::core`, `model` |\n\
    //! | [`daemon`] | x | all below |\n//! | [`vfs`] | x (`cli`) | `model` |\n//! | [`model`] | x | nothing |\n";

fn wrong_in(file: &str, text: &str) -> Vec<String> {
    let s = [source(file, text)];
    let mut all = direction(&table(MAP), &s);
    all.extend(ownership(&["fuser", "tokio", "notify", "rusqlite"].map(str::to_owned).into(), &s));
    all
}

#[test]
fn a_use_in_the_wrong_direction_is_found_however_it_is_written() {
    for text in [
        "use crate::daemon::run;",
        "use crate::{model::Path, daemon::run};",
        "use crate::{model::{a, b}, daemon};",
        "fn f() { crate::daemon::run::go() }",
        "fn f() -> Vec<crate::daemon::X> { todo!() }",
        "use super::super::daemon;",
        "/* x */ use crate::daemon as d; // y",
        "impl<'a> crate::daemon::T for X<'a> {}",
        "fn f() { g('\"'); crate::daemon::h(\"\\\"\"); }",
        "const A: &str = r#\"a\"b\"#; use crate::daemon;",
    ] {
        assert_eq!(wrong_in("vfs/open.rs", text).len(), 1, "{text}");
    }
    assert_eq!(wrong_in("vfs/mod.rs", "use super::daemon;").len(), 1);
    assert_eq!(wrong_in("cli/ls.rs", "use crate::daemon::core::Core;").len(), 1);
    assert_eq!(wrong_in("cli/ls.rs", "use crate::vfs::Vfs;").len(), 1);
    assert_eq!(wrong_in("model/path.rs", "use crate::util::x;").len(), 1);
    assert_eq!(wrong_in("vfs/open.rs", "\n\nuse crate::daemon;"), ["src/vfs/open.rs:3: vfs uses daemon::"]);
}

#[test]
fn what_is_allowed_only_looks_like_a_use_or_stays_in_its_module_is_not_found() {
    for text in [
        "use crate::model::Path; use crate::error::Result; use crate::Error; use crate::vfs::X;",
        "//! [`crate::daemon`]\n// crate::daemon::x\n/* crate::daemon /* nested */ crate::daemon */",
        "const A: &str = \"crate::daemon\"; const B: &str = r\"crate::daemon\"; const C: &[u8] = b\"crate::daemon\";",
        "use super::daemon::x; fn f(daemon: u8) { daemon.y() }",
        "use super::notify; fn f() { notify::ready(); std::fuser::x(); X::fuser::y(); }",
        "mod rusqlite { } fn f() { rusqlite::x() }",
    ] {
        assert_eq!(wrong_in("vfs/open.rs", text), Vec::<String>::new(), "{text}");
    }
    assert!(wrong_in("cli/ls.rs", "use crate::daemon::client::Client; use crate::model::X;").is_empty());
}

#[test]
fn a_crate_outside_of_its_owner_is_found() {
    for text in [
        "use fuser::Filesystem;",
        "use {fuser as f, std::fs};",
        "fn f() -> fuser::Reply { todo!() }",
        "fn f() { ::fuser::x() }",
        "use notify::{Watcher, Event as E};",
        "use rusqlite::{self, Connection};",
    ] {
        assert!(!wrong_in("vfs/open.rs", text).is_empty(), "{text}");
    }
    assert!(wrong_in("state/db.rs", "use rusqlite::Connection;").is_empty());
    assert_eq!(wrong_in("model/path.rs", "use std::fs::File;").len(), 1);
    assert_eq!(wrong_in("model/path.rs", "use std::{fmt, time::Instant};").len(), 1);
    assert_eq!(wrong_in("model/path.rs", "fn f() { tokio::spawn(x) }").len(), 1);
    assert!(wrong_in("model/path.rs", "use std::collections::BTreeMap;").is_empty());
}

#[test]
fn the_table_and_the_manifest_are_read_as_they_are_written() {
    let t = table(MAP);
    let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(t["cli"], May { use_: set(&["daemon", "model"]), but_not: set(&["daemon::core"]) });
    assert_eq!((&t["daemon"].use_, &t["model"].use_), (&set(&["vfs", "model"]), &set(&[])));
    let manifest = "[package]\nname = \"x\"\n\n[dependencies]\n# c = d\naws-sdk-s3 = { version = \"1\" } # e = f\nlru = \"1\"\n\n[dev-dependencies]\nz = \"1\"\n";
    assert_eq!(dependencies(manifest), set(&["aws_sdk_s3", "lru"]));
}
