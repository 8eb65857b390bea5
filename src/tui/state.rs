//! What is on the screen: facts as the daemon told them last, where the person is, and what a key does. Pure.
//!
//! Must: nothing is done to a file without a question that was answered with yes.

use crate::daemon::protocol::{Activity, Conflict, Device, Diff, Keep, Pending, ResolveConflict, Status, What};
use std::collections::VecDeque;

/// Lines of the log that are kept.
const LOG: usize = 1000;
/// Moments of which transfer rates are computed.
const SAMPLES: usize = 6;

/// A part of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// How the drive is.
    #[default]
    Overview,
    /// What goes out, what came.
    Transfers,
    /// The fleet.
    Devices,
    /// What happens.
    Log,
    /// Versions side by side.
    Conflicts,
}

impl Tab {
    /// In order, with their names.
    pub const ALL: [(Tab, &'static str); 5] = [
        (Tab::Overview, "Overview"),
        (Tab::Transfers, "Transfers"),
        (Tab::Devices, "Devices"),
        (Tab::Log, "Log"),
        (Tab::Conflicts, "Conflicts"),
    ];

    /// Its place.
    pub fn index(self) -> usize {
        Tab::ALL.iter().position(|(t, _)| *t == self).unwrap_or(0)
    }

    fn step(self, by: usize) -> Tab {
        Tab::ALL[(self.index() + by) % Tab::ALL.len()].0
    }
}

/// A key, as far as it means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Press {
    /// A character.
    Char(char),
    /// Tab.
    Next,
    /// Shift and Tab.
    Previous,
    /// Arrow.
    Left,
    /// Arrow.
    Right,
    /// Arrow.
    Up,
    /// Arrow.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
}

/// What lies over the tab.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The keys.
    Help,
    /// How two versions differ, and how far down it is read.
    Diff(Box<Diff>, usize),
    /// A question.
    Ask(ResolveConflict),
}

/// What is to be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End of the program.
    Quit,
    /// How two versions of a path differ.
    Diff(String),
    /// A conflict is to end.
    Resolve(ResolveConflict),
}

/// What the way to the daemon tells.
#[derive(Clone, Debug)]
pub enum News {
    /// There is a daemon, or none any more and why.
    Link(Result<(), String>),
    /// How the drive is, at a moment (milliseconds since 1970).
    Status(Box<Status>, i64),
    /// The fleet.
    Devices(Vec<Device>),
    /// What is in conflict.
    Conflicts(Vec<Conflict>),
    /// What is not in the store yet.
    Pending(Vec<Pending>),
    /// Something happened.
    Happened(Activity),
    /// An answer to [`Wish::Diff`].
    Diff(Result<Box<Diff>, String>),
    /// An answer to [`Wish::Resolve`]: a sentence.
    Resolved(Result<String, String>),
}

/// Bytes that had gone to and come from the store at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    at: i64,
    sent: u64,
    received: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// Which part.
    pub tab: Tab,
    /// What lies over it.
    pub over: Over,
    /// None: the daemon answers. Else why it does not.
    pub lost: Option<String>,
    /// How the drive is.
    pub status: Option<Status>,
    /// The fleet.
    pub devices: Vec<Device>,
    /// What is in conflict.
    pub conflicts: Vec<Conflict>,
    /// What is not in the store yet.
    pub pending: Vec<Pending>,
    /// What happened, newest last.
    pub log: VecDeque<Activity>,
    /// Which line of the list is chosen, by tab.
    pub chosen: [usize; 5],
    /// What the last wish came to: good or bad.
    pub message: Option<Result<String, String>>,
    samples: VecDeque<Sample>,
}

impl App {
    /// Before anything is known.
    pub fn new() -> App {
        App { lost: Some("looking for the daemon".to_owned()), ..App::default() }
    }

    /// The conflict that is chosen.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.conflicts.get(self.chosen[Tab::Conflicts.index()])
    }

    /// Bytes a second to and from the store, lately.
    pub fn rates(&self) -> (u64, u64) {
        let (Some(a), Some(b)) = (self.samples.front(), self.samples.back()) else { return (0, 0) };
        let ms = u64::try_from(b.at - a.at).unwrap_or(0);
        if ms == 0 {
            return (0, 0);
        }
        (b.sent.saturating_sub(a.sent) * 1000 / ms, b.received.saturating_sub(a.received) * 1000 / ms)
    }

    /// Takes what the daemon said.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Link(Ok(())) => self.lost = None,
            News::Link(Err(why)) => {
                self.lost = Some(why);
                self.samples.clear();
            }
            News::Status(s, at) => {
                let bytes = |op: &str| s.store_state.requests.get(op).map_or(0, |c| c.bytes);
                let sample = Sample { at, sent: bytes("put"), received: bytes("get") };
                // Another process counts from the beginning.
                if self.samples.back().is_some_and(|l| sample.sent < l.sent || sample.received < l.received || at < l.at) {
                    self.samples.clear();
                }
                self.samples.push_back(sample);
                if self.samples.len() > SAMPLES {
                    self.samples.pop_front();
                }
                self.status = Some(*s);
            }
            News::Devices(d) => self.devices = d,
            News::Conflicts(c) => {
                // The line stays on its path.
                let on = self.conflict().map(|c| c.path.clone());
                self.conflicts = c;
                if let Some(i) = self.conflicts.iter().position(|c| Some(&c.path) == on.as_ref()) {
                    self.chosen[Tab::Conflicts.index()] = i;
                }
                let gone = |path: &String| !self.conflicts.iter().any(|c| c.path == *path);
                match &self.over {
                    Over::Ask(r) if gone(&r.path) => self.over = Over::Nothing,
                    Over::Diff(d, _) if gone(&d.path) => self.over = Over::Nothing,
                    _ => {}
                }
            }
            News::Pending(p) => self.pending = p,
            News::Happened(a) => {
                // Whoever reads further up stays there.
                if self.log.len() >= LOG {
                    self.log.pop_front();
                }
                self.log.push_back(a);
                let at = &mut self.chosen[Tab::Log.index()];
                if *at > 0 {
                    *at = (*at + 1).min(self.log.len() - 1);
                }
            }
            News::Diff(Ok(d)) => self.over = Over::Diff(d, 0),
            News::Diff(Err(e)) => self.message = Some(Err(e)),
            News::Resolved(r) => self.message = Some(r),
        }
        self.keep_inside();
    }

    fn len(&self) -> usize {
        match self.tab {
            Tab::Overview => 0,
            Tab::Transfers => self.pending.len(),
            Tab::Devices => self.devices.len(),
            Tab::Log => self.log.len(),
            Tab::Conflicts => self.conflicts.len(),
        }
    }

    fn keep_inside(&mut self) {
        for (i, n) in [0, self.pending.len(), self.devices.len(), self.log.len(), self.conflicts.len()].into_iter().enumerate() {
            self.chosen[i] = self.chosen[i].min(n.saturating_sub(1));
        }
    }

    /// Takes a key; says what is to be asked of the daemon.
    pub fn press(&mut self, key: Press) -> Option<Wish> {
        match (&mut self.over, key) {
            (Over::Ask(r), Press::Char('y' | 'Y') | Press::Enter) => {
                let wish = Wish::Resolve(r.clone());
                self.over = Over::Nothing;
                return Some(wish);
            }
            (Over::Ask(_), _) => {
                self.over = Over::Nothing;
                self.message = Some(Ok("nothing was changed".to_owned()));
                return None;
            }
            (Over::Diff(d, at), key) => {
                let lines = d.text.as_ref().map_or(0, |t| t.lines().count());
                match key {
                    Press::Down | Press::Char('j') => *at = (*at + 1).min(lines.saturating_sub(1)),
                    Press::PageDown | Press::Char(' ') => *at = (*at + 15).min(lines.saturating_sub(1)),
                    Press::Up | Press::Char('k') => *at = at.saturating_sub(1),
                    Press::PageUp => *at = at.saturating_sub(15),
                    // What was read may be decided at once.
                    Press::Char('l' | 'r' | 'b') => {
                        self.over = Over::Nothing;
                        return self.in_conflicts(key);
                    }
                    _ => self.over = Over::Nothing,
                }
                return None;
            }
            (Over::Help, _) => {
                self.over = Over::Nothing;
                return None;
            }
            (Over::Nothing, _) => {}
        }
        self.message = None;
        match key {
            Press::Char('q') => return Some(Wish::Quit),
            Press::Char('?' | 'h') => self.over = Over::Help,
            Press::Char(c @ '1'..='5') => self.tab = Tab::ALL[c as usize - '1' as usize].0,
            Press::Next | Press::Right => self.tab = self.tab.step(1),
            Press::Previous | Press::Left => self.tab = self.tab.step(Tab::ALL.len() - 1),
            Press::Down | Press::Char('j') => self.go(1),
            Press::PageDown => self.go(10),
            Press::Up | Press::Char('k') => self.go(-1),
            Press::PageUp => self.go(-10),
            _ if self.tab == Tab::Conflicts => return self.in_conflicts(key),
            _ => {}
        }
        None
    }

    fn go(&mut self, by: isize) {
        let last = self.len().saturating_sub(1);
        let at = &mut self.chosen[self.tab.index()];
        *at = at.saturating_add_signed(by).min(last);
    }

    fn in_conflicts(&mut self, key: Press) -> Option<Wish> {
        let path = self.conflict()?.path.clone();
        let keep = match key {
            Press::Char('d') | Press::Enter => return Some(Wish::Diff(path)),
            Press::Char('l') => Keep::Local,
            Press::Char('r') => Keep::Remote,
            Press::Char('b') => Keep::Both,
            _ => return None,
        };
        self.over = Over::Ask(ResolveConflict { path, keep });
        None
    }
}

/// A line of the log, for people.
pub fn sentence(what: &What) -> String {
    let change = |verb: &str, c: &crate::daemon::protocol::Change| {
        let to = c.moved_to.as_ref().map_or(String::new(), |to| format!(" -> {to}"));
        format!("{verb:<9} {:<10} {}{to} ({})", c.kind, c.path, c.device)
    };
    match what {
        What::Started { version } => format!("started   tcfs {version}"),
        What::Published(c) => change("sent", c),
        What::Arrived(c) => change("came", c),
        What::CaughtUp { versions } => format!("came      {versions} versions at once"),
        What::Conflict { path } => format!("conflict  {path}"),
        What::Resolved { path } => format!("resolved  {path}"),
        What::Store { reachable: true, .. } => "store     it answers".to_owned(),
        What::Store { why, .. } => format!("store     it does not answer: {}", why.as_deref().unwrap_or("no reason is known")),
        What::Device { device, online } => format!("device    {device} {}", if *online { "is there" } else { "went away" }),
        What::Missed { events } => format!("missed    {events} events"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_conflicts(paths: &[&str]) -> App {
        let mut app = App::new();
        app.hear(News::Conflicts(paths.iter().map(|p| Conflict { path: (*p).to_owned(), ..Conflict::default() }).collect()));
        app.press(Press::Char('5'));
        app
    }

    #[test]
    fn tabs_go_round_and_have_numbers() {
        let mut app = App::new();
        app.press(Press::Previous);
        assert_eq!(app.tab, Tab::Conflicts);
        app.press(Press::Right);
        assert_eq!(app.tab, Tab::Overview);
        app.press(Press::Char('4'));
        assert_eq!(app.tab, Tab::Log);
        assert_eq!(app.press(Press::Char('q')), Some(Wish::Quit));
    }

    #[test]
    fn nothing_is_resolved_without_a_yes() {
        let mut app = with_conflicts(&["a", "b"]);
        app.press(Press::Down);
        assert_eq!(app.press(Press::Char('l')), None);
        assert_eq!(app.press(Press::Char('n')), None);
        assert_eq!(app.over, Over::Nothing);
        app.press(Press::Char('r'));
        let wish = app.press(Press::Char('y'));
        assert_eq!(wish, Some(Wish::Resolve(ResolveConflict { path: "b".into(), keep: Keep::Remote })));
    }

    #[test]
    fn the_choice_stays_on_its_path_and_a_question_ends_with_its_conflict() {
        let mut app = with_conflicts(&["b", "c"]);
        app.press(Press::Down);
        app.press(Press::Char('b'));
        let list = |paths: &[&str]| paths.iter().map(|p| Conflict { path: (*p).to_owned(), ..Conflict::default() }).collect();
        app.hear(News::Conflicts(list(&["a", "b", "c"])));
        assert_eq!((app.conflict().unwrap().path.as_str(), matches!(app.over, Over::Ask(_))), ("c", true));
        app.hear(News::Conflicts(list(&["a"])));
        assert_eq!((app.conflict().unwrap().path.as_str(), &app.over), ("a", &Over::Nothing));
        app.hear(News::Conflicts(Vec::new()));
        assert_eq!(app.press(Press::Char('l')), None);
        assert_eq!(app.conflict(), None);
    }

    #[test]
    fn rates_are_those_of_the_last_seconds_and_of_one_process() {
        let mut app = App::new();
        let status = |sent: u64| {
            let mut s = Status::default();
            s.store_state.requests.insert("put".into(), crate::daemon::protocol::OpCounts { bytes: sent, ..Default::default() });
            Box::new(s)
        };
        for (at, sent) in [(1000, 0), (2000, 500), (3000, 3000)] {
            app.hear(News::Status(status(sent), at));
        }
        assert_eq!(app.rates(), (1500, 0));
        app.hear(News::Status(status(10), 4000));
        assert_eq!(app.rates(), (0, 0));
    }
}
