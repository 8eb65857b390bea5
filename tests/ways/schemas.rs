//! Every command's `--json` output is what `tcfs schema` says, line by line.

use super::common::Mounted;
use super::in_conflict;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

struct Checked<'a> {
    m: &'a Mounted,
    types: BTreeSet<String>,
}

impl Checked<'_> {
    /// Runs a command with `--json` and holds each line against the schema of `of`.
    fn ok(&mut self, of: &str, args: &[&str], codes: &[i32]) {
        let schema: Value = serde_json::from_str(&self.m.cli(&["schema", of]).ok().stdout).unwrap();
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.add_resource("tcfs.json", schema).unwrap();
        let index = compiler.compile("tcfs.json", &mut schemas).unwrap();
        let done = self.m.cli(&[&["--json"], args].concat());
        assert!(codes.contains(&done.code), "{} exited with {}\n{}", done.line, done.code, done.text());
        let lines = done.json();
        assert!(!lines.is_empty(), "{} printed nothing", done.line);
        for l in lines {
            if let Err(e) = schemas.validate(&l, index) {
                panic!("{} printed what its schema does not say: {l}\n{e}", done.line);
            }
            self.types.insert(l["type"].as_str().unwrap_or("error").to_owned());
        }
    }
}

#[test]
fn what_json_prints_is_what_the_schema_says() {
    let (w, a, _b) = in_conflict();
    fs::create_dir(a.path("d")).unwrap();
    fs::write(a.path("d/f"), "one").unwrap();
    a.wait();
    fs::write(a.path("d/f"), "two").unwrap();
    fs::write(a.path("gone"), "x").unwrap();
    fs::write(a.path(".tcfsignore"), "*.tmp\n").unwrap();
    a.wait();
    fs::remove_file(a.path("gone")).unwrap();
    a.wait();
    let out = w.dir().join("out");
    let source = w.dir().join("source");
    fs::write(&source, "x").unwrap();
    let (out, source) = (out.to_str().unwrap(), source.to_str().unwrap());
    let report = w.dir().join("r.txt");
    let man = w.dir().join("man");
    let mut c = Checked { m: &a, types: BTreeSet::new() };
    for (of, args, codes) in [
        ("status", vec!["status"], vec![0]),
        ("mount", vec!["mount", a.root().to_str().unwrap()], vec![0]),
        ("ls", vec!["ls", "-R"], vec![0]),
        ("find", vec!["find", "-name", "*"], vec![0]),
        ("why", vec!["why", "plan.md"], vec![0]),
        ("why", vec!["why", "d/f"], vec![0]),
        ("why", vec!["why", "gone"], vec![0]),
        ("push", vec!["push", source, "--to", "pushed"], vec![0]),
        ("pull", vec!["pull", "d", out], vec![0]),
        ("hydrate", vec!["hydrate", "d"], vec![0]),
        ("pin", vec!["pin", "d"], vec![0]),
        ("unpin", vec!["unpin", "d"], vec![0]),
        ("cache", vec!["cache", "--top"], vec![0]),
        ("unsync", vec!["unsync", "d"], vec![0, 3]),
        ("ignore", vec!["ignore", "--check", "a.tmp"], vec![0, 3]),
        ("git", vec!["git", "status"], vec![0]),
        ("wait", vec!["wait"], vec![0]),
        ("history", vec!["history", "d/f"], vec![0]),
        ("diff", vec!["diff", "d/f"], vec![0]),
        ("restore", vec!["restore", "d/f"], vec![0]),
        ("log", vec!["log"], vec![0]),
        ("trash", vec!["trash"], vec![0]),
        ("trash", vec!["trash", "restore", "gone"], vec![0]),
        ("trash", vec!["trash", "empty"], vec![0]),
        ("conflicts", vec!["conflicts"], vec![0]),
        ("conflicts", vec!["conflicts", "diff", "plan.md"], vec![0]),
        ("resolve-conflict", vec!["resolve-conflict", "plan.md", "--keep-local"], vec![0]),
        ("approve", vec!["approve", "--list"], vec![0]),
        ("gc", vec!["gc", "--dry-run"], vec![0, 3]),
        ("device", vec!["device", "list"], vec![0]),
        ("device", vec!["device", "rename", "anna"], vec![0]),
        ("device", vec!["device", "enroll"], vec![0]),
        ("device", vec!["device", "revoke", "bob"], vec![0]),
        ("store", vec!["store", "show"], vec![0]),
        ("doctor", vec!["doctor", "--fix"], vec![0, 1]),
        ("report", vec!["report", "--output", report.to_str().unwrap()], vec![0]),
        ("config", vec!["config", "show"], vec![0]),
        ("config", vec!["config", "check"], vec![0]),
        ("config", vec!["config", "path"], vec![0]),
        ("service", vec!["service", "print"], vec![0]),
        ("service", vec!["service", "uninstall"], vec![0]),
        ("man", vec!["man", man.to_str().unwrap()], vec![0]),
        // What fails, and what is not understood.
        ("history", vec!["history", "never-there"], vec![1]),
        ("restore", vec!["restore", "d/f", "--at", "tomorrow"], vec![2]),
        ("ls", vec!["ls", "--no-such-flag"], vec![2]),
        ("daemon", vec!["daemon", "restart"], vec![0]),
        ("unmount", vec!["unmount", a.root().to_str().unwrap()], vec![0]),
        ("daemon", vec!["daemon", "stop"], vec![0, 10]),
        ("status", vec!["status"], vec![10]),
    ] {
        c.ok(of, &args, &codes);
    }
    // The lists had lines, not only sums.
    for t in ["entry", "version", "conflict", "removed", "cached", "change", "device", "check", "setting", "ignored", "error", "diff"] {
        assert!(c.types.contains(t), "no line of type {t}: {:?}", c.types);
    }
    assert!(a.cli(&["schema", "nonsense"]).exit(2).stderr.contains("one of: mount"));
    let any: Value = serde_json::from_str(&a.cli(&["schema"]).ok().stdout).unwrap();
    assert!(any["anyOf"].as_array().unwrap().len() > 40);
}
