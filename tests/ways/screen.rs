//! The full-screen view in a real terminal: tmux.

use super::common::cli::run;
use super::common::{Mounted, World, tools, until};
use super::{SOON, conflict, other, sibling};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A terminal of 80 columns and 24 lines that runs `tcfs tui`; ended when dropped.
struct Terminal {
    tmux: PathBuf,
    socket: PathBuf,
}

impl Terminal {
    fn with(m: &Mounted) -> Terminal {
        let tmux = tools::find("tmux");
        let t = Terminal { tmux, socket: m.world().dir().join("tmux") };
        let mut new = t.command(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"]);
        let tui = m.tcfs(&["tui"]);
        for (k, v) in tui.get_envs() {
            new.arg("-e").arg(format!("{}={}", k.to_string_lossy(), v.unwrap_or_default().to_string_lossy()));
        }
        run(new.arg(tui.get_program()).args(tui.get_args()), SOON).ok();
        t
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(&self.tmux);
        c.arg("-S").arg(&self.socket).args(args).env("LC_ALL", "C.UTF-8").env("TERM", "screen");
        c
    }

    fn keys(&self, keys: &str) {
        run(&mut self.command(&["send-keys", keys]), SOON).ok();
    }

    fn screen(&self) -> String {
        run(&mut self.command(&["capture-pane", "-p"]), SOON).stdout
    }

    fn shows(&self, what: &str) -> String {
        let mut last = String::new();
        until(&format!("the screen shows {what:?}"), SOON, || {
            last = self.screen();
            last.contains(what).then(|| last.clone())
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

#[test]
fn a_conflict_appears_is_compared_and_resolved() {
    let w = World::new();
    let (a, b) = (w.mount("ann"), w.mount("bob"));
    let t = Terminal::with(&a);
    t.shows("tcfs on ann");
    t.keys("5");
    t.shows("none");
    conflict(&a, &b, "plan.md");
    let s = t.shows("plan.md  (2 versions)");
    assert!(s.contains("l: this machine's") && s.contains("r: bob") && s.contains("5 Conflicts (1)"), "{s}");
    t.keys("d");
    let s = t.shows("from bob");
    assert!(s.contains("from ann") && s.contains("@@"), "{s}");
    t.keys("Escape");
    t.shows("l: this machine's");
    // A question that is not answered with yes changes nothing.
    t.keys("l");
    t.shows("Resolve this conflict?");
    t.keys("n");
    t.shows("nothing was changed");
    t.keys("l");
    t.shows("Resolve this conflict?");
    t.keys("y");
    t.shows("this machine's version stays");
    t.shows(" none");
    for m in [&a, &b] {
        until("the mounts agree", SOON, || {
            let same = fs::read(m.path("plan.md")).ok()? == b"from ann\n";
            (same && !m.path(sibling("plan.md")).exists() && !m.path(other("plan.md")).exists()).then_some(())
        });
    }
    t.keys("4");
    let s = t.shows("resolved  plan.md");
    assert!(s.contains("conflict  plan.md"), "{s}");
}

#[test]
fn it_goes_on_over_a_restart_and_a_smaller_window() {
    let w = World::new();
    let a = w.mount("ann");
    let t = Terminal::with(&a);
    t.shows("store ok");
    a.unmount();
    t.shows("no daemon is running");
    a.mount();
    t.shows("store ok");
    run(&mut t.command(&["resize-window", "-x", "40", "-y", "10"]), SOON).ok();
    t.keys("3");
    t.shows("ann");
    t.keys("q");
    until("it has ended", SOON, || (!t.command(&["list-sessions"]).output().unwrap().status.success()).then_some(()));
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let w = World::new();
    let a = w.device("ann").off();
    let done = a.cli(&["tui"]).exit(2);
    assert!(done.stderr.contains("needs a terminal") && done.stderr.contains("--json"), "{}", done.text());
}
