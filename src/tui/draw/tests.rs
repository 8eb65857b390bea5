//! Screens as texts, reviewed: `tests/golden/tui/`. To make them anew after a change that is meant:
//! `TCFS_TEST_BLESS=1 cargo nextest run --lib -E 'test(tui)'`.

use super::super::state::{News, Press};
use super::*;
use crate::daemon::protocol::{Activity, Change, Device, DeviceRef, Diff, DiffSide, MountInfo, OpCounts, Pending, Status, What};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::path::PathBuf;

/// 2026-02-13 18:04:05 UTC.
const NOW: i64 = 1_771_005_845_000;

fn screen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let look = Look { now: NOW, zone: Some(UtcOffset::UTC) };
    terminal.draw(|f| draw(f, app, look)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut out = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn reviewed(name: &str, app: &App, size: (u16, u16)) {
    let shown = screen(app, size.0, size.1);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tui").join(format!("{name}.txt"));
    if std::env::var_os("TCFS_TEST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &shown).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, wanted, "{}:\n{shown}", path.display());
}

fn head(device: &str, path: &str, shown: bool, own: bool) -> Head {
    let device = DeviceRef { id: format!("{device}-00000001"), name: device.to_owned() };
    Head {
        path: path.to_owned(),
        shown,
        own,
        place: device.clone(),
        written_at: NOW - if own { 90_000 } else { 61_000 },
        version: format!("{}a1b2c3d4e5f6a7", device.name.len()),
        device,
        kind: EntryKind::File,
        size: if own { 1234 } else { 1250 },
    }
}

fn status() -> Status {
    let mut s = Status {
        pid: 4711,
        version: "0.1.0".into(),
        started_at: NOW - 7_300_000,
        device: Some(DeviceRef { id: "ann-00000001".into(), name: "ann".into() }),
        store: "s3://tcfs/default".into(),
        mounts: vec![MountInfo {
            mountpoint: "/home/ann/tcfs".into(),
            backend: "fuse".into(),
            since: NOW - 7_200_000,
            ..MountInfo::default()
        }],
        pending: 2,
        entries: 12_345,
        conflicts: 1,
        conflict_mode: "interactive".into(),
        devices: 3,
        log: "/home/ann/.local/state/tcfs/log/tcfs.log".into(),
        ..Status::default()
    };
    s.store_state.reachable = true;
    s.store_state.last_ok_at = Some(NOW - 2000);
    s.store_state.requests.insert("put".into(), OpCounts { requests: 40, bytes: 3 << 20, in_flight: 1, ..OpCounts::default() });
    s.store_state.requests.insert("get".into(), OpCounts { requests: 120, bytes: 80 << 20, ..OpCounts::default() });
    s.outbox.bytes = 5 << 20;
    s.outbox.oldest_at = Some(NOW - 30_000);
    s.outbox.current = Some("films/holiday.mov".into());
    s.cache.bytes = 4 << 30;
    s.cache.max_bytes = 50 << 30;
    s.cache.pinned_bytes = 1 << 30;
    s.nats.state = "connected".into();
    s.nats.url = Some("nats://nats.example.org:4222".into());
    s
}

fn app() -> App {
    let mut app = App::new();
    app.hear(News::Link(Ok(())));
    let mut before = status();
    before.store_state.requests.insert("put".into(), OpCounts { bytes: 1 << 20, ..OpCounts::default() });
    app.hear(News::Status(Box::new(before), NOW - 2000));
    app.hear(News::Status(Box::new(status()), NOW));
    let device = |name: &str, this, online, revoked, seen: i64| Device {
        id: format!("{name}-00000001"),
        name: name.to_owned(),
        this,
        online,
        revoked,
        last_seen_at: Some(NOW - seen),
        applied: 42,
        ..Device::default()
    };
    app.hear(News::Devices(vec![
        device("ann", true, Some(true), false, 0),
        device("petting-zoo-mini", false, Some(false), false, 5 * 3_600_000),
        device("yoga", false, Some(true), false, 3_000),
        device("old-laptop", false, None, true, 90 * 86_400_000),
    ]));
    let pending = |path: &str, size, since, open| Pending { path: path.to_owned(), size, since, open, ..Pending::default() };
    app.hear(News::Pending(vec![
        pending("films/holiday.mov", 5 << 20, NOW - 30_000, false),
        pending("notes/a name with \u{7} in it.md", 120, NOW, true),
    ]));
    app.hear(News::Conflicts(vec![Conflict {
        path: "notes/plan.md".into(),
        heads: vec![head("ann", "notes/plan.md", true, true), head("yoga", "notes/plan.conflict-yoga.md", false, false)],
        resolve: Vec::new(),
    }]));
    let change =
        |path: &str, device: &str| Change { path: path.to_owned(), kind: "file".into(), device: device.to_owned(), ..Change::default() };
    let events = [
        What::Started { version: "0.1.0".into() },
        What::Store { reachable: false, why: Some("connection refused".into()) },
        What::Store { reachable: true, why: None },
        What::Arrived(change("notes/plan.md", "yoga")),
        What::Conflict { path: "notes/plan.md".into() },
        What::Published(change("todo.txt", "ann")),
        What::Device { device: "yoga-00000001".into(), online: true },
    ];
    for (i, what) in events.into_iter().enumerate() {
        app.hear(News::Happened(Activity { at: NOW - 60_000 + i as i64 * 1000, what }));
    }
    app
}

fn on(tab: char) -> App {
    let mut app = app();
    app.press(Press::Char(tab));
    app
}

fn the_diff() -> News {
    let text = "--- notes/plan.md\t(ann)\n+++ notes/plan.conflict-yoga.md\t(yoga)\n@@ -1,3 +1,3 @@\n monday\n-tuesday: ann\n+tuesday: yoga\n wednesday\n";
    News::Diff(Ok(Box::new(Diff {
        path: "notes/plan.md".into(),
        shown: DiffSide { head: head("ann", "notes/plan.md", true, true), ..DiffSide::default() },
        other: DiffSide { head: head("yoga", "notes/plan.conflict-yoga.md", false, false), ..DiffSide::default() },
        text: Some(text.into()),
        ..Diff::default()
    })))
}

#[test]
fn tui_screens_are_as_reviewed() {
    for (name, tab) in [("overview", '1'), ("transfers", '2'), ("devices", '3'), ("log", '4'), ("conflicts", '5')] {
        reviewed(name, &on(tab), (80, 24));
    }
    reviewed("conflicts-wide", &on('5'), (120, 40));
}

#[test]
fn tui_what_lies_over_a_part_is_as_reviewed() {
    let mut app = on('5');
    app.hear(the_diff());
    reviewed("diff", &app, (80, 24));
    app.press(Press::Char('l'));
    reviewed("question", &app, (80, 24));
    app.press(Press::Escape);
    app.press(Press::Char('?'));
    reviewed("help", &app, (80, 24));
}

#[test]
fn tui_without_a_daemon_says_so_and_keeps_what_it_knew() {
    let mut app = on('1');
    app.hear(News::Link(Err("no daemon is running".into())));
    reviewed("no-daemon", &app, (80, 24));
    let mut empty = App::new();
    empty.press(Press::Char('5'));
    reviewed("nothing-yet", &empty, (80, 24));
}

#[test]
fn tui_draws_in_any_size() {
    for (width, height) in [(1, 1), (10, 3), (40, 10), (79, 23), (300, 100)] {
        for tab in ['1', '2', '3', '4', '5'] {
            let mut app = on(tab);
            screen(&app, width, height);
            app.hear(the_diff());
            screen(&app, width, height);
            app.press(Press::Char('b'));
            screen(&app, width, height);
        }
    }
}
