//! The screen drawn from its state. Pure: the same state draws the same cells.
//!
//! Must: readable at 80 columns and 24 lines, with no colour, and over a slow line (only what changed is sent). Control
//! characters in names do nothing to the terminal.

use super::state::{App, Over, Tab, sentence};
use crate::daemon::protocol::{Conflict, DiffForm, EntryKind, Head, Keep};
use crate::human::{size, span, time, zone_at};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Tabs, Wrap};
use time::UtcOffset;

/// How numbers and times are written.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Now, milliseconds since 1970.
    pub now: i64,
    /// None: this machine's.
    pub zone: Option<UtcOffset>,
}

fn plain(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
    } else {
        text.to_owned()
    }
}

impl Look {
    fn time(&self, ms: i64) -> String {
        time(ms, self.zone.unwrap_or_else(|| zone_at(ms)))
    }

    fn ago(&self, ms: i64) -> String {
        format!("{} ago", span(self.now - ms))
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, app: &App, look: Look) {
    let [head, tabs, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(title(app), head);
    let names = Tab::ALL.iter().enumerate().map(|(i, (tab, name))| {
        let n = match tab {
            Tab::Conflicts => app.conflicts.len(),
            Tab::Transfers => app.pending.len(),
            _ => 0,
        };
        if n > 0 { format!("{} {name} ({n})", i + 1) } else { format!("{} {name}", i + 1) }
    });
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Tabs::new(names).select(app.tab.index()).highlight_style(chosen).divider("|"), tabs);
    match app.tab {
        Tab::Overview => overview(frame, body, app, look),
        Tab::Transfers => transfers(frame, body, app, look),
        Tab::Devices => devices(frame, body, app, look),
        Tab::Log => log(frame, body, app, look),
        Tab::Conflicts => conflicts(frame, body, app, look),
    }
    frame.render_widget(footer(app), foot);
    match &app.over {
        Over::Nothing => {}
        Over::Help => help(frame, body),
        Over::Diff(d, at) => diff(frame, body, d, *at),
        Over::Ask(r) => ask(frame, body, &r.path, &r.keep),
    }
}

fn title(app: &App) -> Line<'static> {
    let name = app.status.as_ref().and_then(|s| s.device.as_ref()).map_or("tcfs".to_owned(), |d| format!("tcfs on {}", d.name));
    let mut spans = vec![Span::from(format!(" {name} ")).bold()];
    match (&app.lost, &app.status) {
        (Some(why), _) => spans.push(Span::from(format!(" {} ", plain(why))).fg(Color::Red)),
        (None, Some(s)) => {
            let store = if s.store_state.reachable {
                Span::from(" store ok ").fg(Color::Green)
            } else {
                Span::from(" store: no answer ").fg(Color::Red)
            };
            let bus = match s.nats.state.as_str() {
                "connected" => Span::from(" bus ok ").fg(Color::Green),
                "off" => Span::from(" no bus ").dim(),
                _ => Span::from(" bus: connecting ").fg(Color::Yellow),
            };
            spans.extend([store, bus]);
            if s.pending > 0 {
                spans.push(Span::from(format!(" {} pending ", s.pending)).fg(Color::Yellow));
            }
            if s.conflicts > 0 {
                spans.push(Span::from(format!(" {} in conflict ", s.conflicts)).fg(Color::Yellow));
            }
        }
        (None, None) => {}
    }
    Line::from(spans)
}

fn footer(app: &App) -> Line<'static> {
    match &app.message {
        Some(Ok(m)) => Line::from(format!(" {}", plain(m))).fg(Color::Green),
        Some(Err(m)) => Line::from(format!(" {}", plain(m))).fg(Color::Red),
        None => {
            let keys = match (&app.over, app.tab) {
                (Over::Ask(_), _) => " y yes   any other key: no",
                (Over::Diff(..), _) => " arrows scroll   l local  r remote  b both   Esc back",
                (_, Tab::Conflicts) => " up/down choose   d diff  l local  r remote  b both   ? help  q quit",
                (_, Tab::Overview) => " 1-5 or Tab: other parts   ? help  q quit",
                _ => " up/down scroll   1-5 or Tab: other parts   ? help  q quit",
            };
            Line::from(keys).dim()
        }
    }
}

fn overview(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let block = Block::new().borders(Borders::TOP).title(" Overview ");
    let Some(s) = &app.status else {
        return frame.render_widget(Paragraph::new("nothing is known yet; `tcfs mount` starts the daemon").block(block), area);
    };
    let row = |name: &str, text: String| Line::from(vec![Span::from(format!(" {name:<11}")).dim(), Span::from(plain(&text))]);
    let mut lines = Vec::new();
    match s.mounts.as_slice() {
        [] => lines.push(row("mount", "nothing is mounted".to_owned())),
        all => lines.extend(all.iter().map(|m| {
            let how = if m.read_only { ", read-only" } else { "" };
            row("mount", format!("{} ({}{how}), since {}", m.mountpoint.display(), m.backend, look.time(m.since)))
        })),
    }
    lines.push(row("store", s.store.clone()));
    let ok = s.store_state.last_ok_at.map_or("never".to_owned(), |t| look.ago(t));
    let state = if s.store_state.reachable { "answers".to_owned() } else { format!("does not answer; it did {ok}") };
    lines.push(row("", state));
    if let Some(e) = &s.store_state.last_error {
        lines.push(row("", e.clone()).fg(Color::Red));
    }
    let bus = match (&s.nats.url, &s.nats.last_error) {
        (None, _) => "none; the store is polled".to_owned(),
        (Some(u), None) => format!("{} ({u})", s.nats.state),
        (Some(u), Some(e)) => format!("{} ({u}): {e}", s.nats.state),
    };
    lines.push(row("bus", bus));
    lines.push(row("entries", format!("{}   devices {}   conflicts shown as {}", s.entries, s.devices, s.conflict_mode)));
    let oldest = s.outbox.oldest_at.map_or(String::new(), |t| format!(", the oldest from {}", look.ago(t)));
    lines.push(row("pending", format!("{} ({}){oldest}, {} open for writing", s.pending, size(s.outbox.bytes), s.outbox.open_for_writing)));
    let conflicts = row("conflicts", s.conflicts.to_string());
    lines.push(if s.conflicts > 0 { conflicts.fg(Color::Yellow) } else { conflicts });
    if s.held_back > 0 {
        lines.push(row("held back", format!("{} deletes wait for `tcfs approve`", s.held_back)).fg(Color::Yellow));
    }
    let full = (s.cache.bytes.saturating_mul(100)).checked_div(s.cache.max_bytes).unwrap_or(0);
    let cache = format!("{} of {} ({full} %), {} pinned", size(s.cache.bytes), size(s.cache.max_bytes), size(s.cache.pinned_bytes));
    lines.push(row("cache", cache));
    lines.push(row("process", format!("{}, tcfs {}, started {}", s.pid, s.version, look.time(s.started_at))));
    lines.push(row("log", s.log.display().to_string()));
    lines.extend(s.warnings.iter().map(|w| row("warning", w.clone()).fg(Color::Yellow)));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The part of a list of `len` lines that is shown in `room` lines, so that `chosen` is in it: where it begins.
fn window(len: usize, room: usize, chosen: usize) -> usize {
    if chosen < room { 0 } else { (chosen + 1 - room).min(len.saturating_sub(room)) }
}

fn list(frame: &mut Frame<'_>, area: Rect, block: Block<'static>, chosen: Option<usize>, lines: &[Line<'static>]) {
    let room = block.inner(area).height as usize;
    let from = window(lines.len(), room, chosen.unwrap_or(0));
    let shown = lines.iter().enumerate().skip(from).take(room);
    let shown: Vec<Line<'static>> = shown
        .map(|(i, l)| if Some(i) == chosen { l.clone().style(Style::new().add_modifier(Modifier::REVERSED)) } else { l.clone() })
        .collect();
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

fn transfers(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let [top, rest] = Layout::vertical([Constraint::Length(4), Constraint::Min(1)]).areas(area);
    let (sent, received) = app.rates();
    let total = |op: &str| app.status.as_ref().and_then(|s| s.store_state.requests.get(op)).copied().unwrap_or_default();
    let (put, get) = (total("put"), total("get"));
    let now = app.status.as_ref().and_then(|s| s.outbox.current.clone()).unwrap_or_default();
    let line = |name: &str, rate: u64, c: crate::daemon::protocol::OpCounts| {
        let rate = format!("{}/s", size(rate));
        Line::from(format!(" {name:<9}{rate:>12}   {:>9} in {} requests, {} under way", size(c.bytes), c.requests, c.in_flight))
    };
    let lines = vec![line("to store", sent, put), line("from it", received, get), Line::from(format!(" now      {}", plain(&now)))];
    frame.render_widget(Paragraph::new(lines).block(Block::new().borders(Borders::TOP).title(" Transfers ")), top);
    let block = Block::new().borders(Borders::TOP).title(format!(" Not in the store yet: {} ", app.pending.len()));
    if app.pending.is_empty() {
        return frame.render_widget(Paragraph::new(" nothing: everything that was closed is in the store").block(block), rest);
    }
    let lines: Vec<Line<'static>> = app
        .pending
        .iter()
        .map(|p| {
            let what = if p.open { "open".to_owned() } else { look.ago(p.since) };
            let what_size = if p.kind == EntryKind::Removed { "removed".to_owned() } else { size(p.size) };
            Line::from(format!(" {what:>12}  {what_size:>9}  {}", plain(&p.path)))
        })
        .collect();
    list(frame, rest, block, Some(app.chosen[Tab::Transfers.index()]), &lines);
}

fn devices(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let block = Block::new().borders(Borders::TOP).title(" Devices ");
    let mut lines = vec![Line::from(format!(" {:<18} {:<14} {:<16} {:>8}  id", "name", "state", "seen", "batches")).dim()];
    lines.extend(app.devices.iter().map(|d| {
        let state = match (d.this, d.revoked, d.online) {
            (_, true, _) => "revoked",
            (true, ..) => "this machine",
            (_, _, Some(true)) => "online",
            (_, _, Some(false)) => "offline",
            _ => "",
        };
        let seen = d.last_seen_at.map_or("never".to_owned(), |t| look.ago(t));
        let line = Line::from(format!(" {:<18} {state:<14} {seen:<16} {:>8}  {}", plain(&d.name), d.applied, d.id));
        if d.revoked { line.fg(Color::Red) } else { line }
    }));
    list(frame, area, block, Some(app.chosen[Tab::Devices.index()] + 1), &lines);
}

fn log(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let block = Block::new().borders(Borders::TOP).title(" Log: what happens, newest first ");
    let lines: Vec<Line<'static>> = app
        .log
        .iter()
        .rev()
        .map(|a| {
            let line = Line::from(format!(" {}  {}", &look.time(a.at)[11..], plain(&sentence(&a.what))));
            match &a.what {
                crate::daemon::protocol::What::Conflict { .. } => line.fg(Color::Yellow),
                crate::daemon::protocol::What::Store { reachable: false, .. } => line.fg(Color::Red),
                _ => line,
            }
        })
        .collect();
    if lines.is_empty() {
        return frame.render_widget(Paragraph::new(" nothing happened since this was opened").block(block), area);
    }
    list(frame, area, block, Some(app.chosen[Tab::Log.index()]), &lines);
}

fn conflicts(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let block = Block::new().borders(Borders::TOP).title(" Conflicts: files that several machines changed at once ");
    if app.conflicts.is_empty() {
        return frame.render_widget(Paragraph::new(" none").block(block), area);
    }
    let rows = app.conflicts.len().min(usize::from(area.height / 2)) as u16 + 1;
    let [top, below] = Layout::vertical([Constraint::Length(rows), Constraint::Min(6)]).areas(area);
    let lines: Vec<Line<'static>> =
        app.conflicts.iter().map(|c| Line::from(format!(" {}  ({} versions)", plain(&c.path), c.heads.len()))).collect();
    list(frame, top, block, Some(app.chosen[Tab::Conflicts.index()]), &lines);
    if let Some(c) = app.conflict() {
        sides(frame, below, c, look);
    }
}

/// Local and remote, as the keys `l` and `r` mean them, beside each other.
fn sides(frame: &mut Frame<'_>, area: Rect, c: &Conflict, look: Look) {
    let local = c.heads.iter().find(|h| h.own).or_else(|| c.heads.iter().find(|h| h.shown)).or(c.heads.first());
    let Some(local) = local else { return };
    let remote = c.heads.iter().find(|h| h.version != local.version);
    let [left, right] = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    side(frame, left, "l: this machine's", local, look);
    if let Some(r) = remote {
        let more = c.heads.len().saturating_sub(2);
        let title =
            if more > 0 { format!("r: {}, and {more} more", plain(&r.device.name)) } else { format!("r: {}", plain(&r.device.name)) };
        side(frame, right, &title, r, look);
    }
}

fn side(frame: &mut Frame<'_>, area: Rect, title: &str, h: &Head, look: Look) {
    let row = |name: &str, text: String| Line::from(vec![Span::from(format!("{name:<8}")).dim(), Span::from(plain(&text))]);
    let what = match h.kind {
        EntryKind::File => format!("{} ({} bytes)", size(h.size), h.size),
        EntryKind::Symlink => "symbolic link".to_owned(),
        EntryKind::Dir => "directory".to_owned(),
        EntryKind::Bundle => "git repository".to_owned(),
        EntryKind::Removed | EntryKind::Special => String::new(),
    };
    let name = h.path.rsplit('/').next().unwrap_or(&h.path).to_owned();
    let mut lines = vec![
        row("name", name),
        row("device", h.device.name.clone()),
        row("time", look.time(h.written_at)),
        row("size", what),
        row("version", h.version.chars().take(8).collect()),
    ];
    if h.shown {
        lines.push(Line::from("has the name now").bold());
    }
    frame.render_widget(Paragraph::new(lines).block(Block::new().borders(Borders::ALL).title(format!(" {title} "))), area);
}

fn diff(frame: &mut Frame<'_>, area: Rect, d: &crate::daemon::protocol::Diff, at: usize) {
    frame.render_widget(Clear, area);
    let title = format!(" {}: {} (-) and {} (+) ", plain(&d.path), plain(&d.shown.head.device.name), plain(&d.other.head.device.name));
    let block = Block::new().borders(Borders::ALL).title(title);
    let lines: Vec<Line<'static>> = match (d.form, &d.text) {
        (DiffForm::Text, Some(text)) => text
            .lines()
            .skip(at)
            .map(|l| {
                let shown = plain(&l.replace('\t', "    "));
                match l.as_bytes().first() {
                    _ if l.starts_with("--- ") || l.starts_with("+++ ") => Line::from(shown).bold(),
                    Some(b'+') => Line::from(shown).fg(Color::Green),
                    Some(b'-') => Line::from(shown).fg(Color::Red),
                    _ => Line::from(shown),
                }
            })
            .collect(),
        _ => {
            let side = |mark: &str, s: &crate::daemon::protocol::DiffSide| {
                let hash = s.hash.clone().or_else(|| s.target.as_ref().map(|t| format!("link to {t}"))).unwrap_or_default();
                vec![
                    Line::from(format!("{mark} {} by {}, {} bytes", plain(&s.head.path), plain(&s.head.device.name), s.head.size)),
                    Line::from(format!("  {}", plain(&hash))),
                ]
            };
            let mut all = side("-", &d.shown);
            all.extend(side("+", &d.other));
            all.extend(d.first.map(|n| Line::from(format!("the first byte that differs is number {n} (from 0)"))));
            all
        }
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A box in the middle.
fn middle(area: Rect, width: u16, height: u16) -> Rect {
    let (w, h) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - w) / 2, y: area.y + (area.height - h) / 2, width: w, height: h }
}

fn ask(frame: &mut Frame<'_>, area: Rect, path: &str, keep: &Keep) {
    let what = match keep {
        Keep::Local => "This machine's version stays. The others stay in history.",
        Keep::Remote => "The other version stays. This machine's stays in history.",
        Keep::Both => "Both stay: each becomes a file of its own.",
        Keep::Device(_) => "One version stays. The others stay in history.",
    };
    let area = middle(area, 66, 6);
    frame.render_widget(Clear, area);
    let lines = vec![Line::from(plain(path)).bold(), Line::from(what), Line::default(), Line::from("y: do it    any other key: not")];
    let block = Block::new().borders(Borders::ALL).title(" Resolve this conflict? ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).alignment(Alignment::Center).block(block), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let area = middle(area, 66, 16);
    frame.render_widget(Clear, area);
    let keys = [
        ("1 2 3 4 5", "Overview, Transfers, Devices, Log, Conflicts"),
        ("Tab, arrows", "the next part, the one before"),
        ("up, down", "choose a line; k and j too"),
        ("", ""),
        ("d, Enter", "in Conflicts: how the versions differ"),
        ("l", "keep this machine's version"),
        ("r", "keep the other version"),
        ("b", "keep both, as files of their own"),
        ("", "each asks before it does anything"),
        ("", ""),
        ("?", "these keys"),
        ("q", "the end; the drive goes on"),
    ];
    let lines: Vec<Line<'static>> =
        keys.iter().map(|(k, t)| Line::from(vec![Span::from(format!(" {k:<12} ")).bold(), Span::from(*t)])).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::new().borders(Borders::ALL).title(" Keys ")), area);
}

#[cfg(test)]
mod tests;
