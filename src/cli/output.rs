//! The one place that prints: for people, or as JSON lines for programs.
//!
//! Must: with `--json` every line on stdout is one JSON object, errors included. Must: colours and bars only on
//! terminals. A reader that goes away (`| head`) ends the program quietly.

use super::format;
use crate::daemon::protocol::{ProgressLine, Unit, WireError};
use crate::error::Error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;
use std::io::{BufWriter, IsTerminal, Stdout, Write};
use time::UtcOffset;

/// Where a command prints to.
pub struct Output {
    json: bool,
    terminal: bool,
    color: bool,
    bars: bool,
    offset: UtcOffset,
    stdout: Mutex<BufWriter<Stdout>>,
    bar: Mutex<Option<(String, ProgressBar)>>,
}

impl Output {
    /// For this process. To be called before there are threads: the local time zone can only be asked for then.
    pub fn new(json: bool) -> Output {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Output {
            json,
            terminal,
            color: terminal && !plain && !json,
            bars: std::io::stderr().is_terminal() && !json,
            offset: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC),
            stdout: Mutex::new(BufWriter::new(std::io::stdout())),
            bar: Mutex::new(None),
        }
    }

    /// Whether programs read it.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person reads it live.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line for people; nothing with `--json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            self.write(text.as_ref());
        }
    }

    /// An object for programs; nothing without `--json`.
    pub fn object(&self, value: &impl Serialize) {
        if self.json {
            // Serialisation of our own types into memory does not fail.
            self.write(&serde_json::to_string(value).unwrap_or_default());
        }
    }

    /// Text that is the product itself (completions, a path), in both forms as it is.
    pub fn raw(&self, text: &str) {
        let mut out = self.stdout.lock();
        check(out.write_all(text.as_bytes()));
    }

    fn write(&self, text: &str) {
        let put = || {
            let mut out = self.stdout.lock();
            check(writeln!(out, "{text}"));
            if self.terminal {
                check(out.flush());
            }
        };
        match &*self.bar.lock() {
            Some((_, bar)) => bar.suspend(put),
            None => put(),
        }
    }

    /// Something a person should know beside the result; on stderr.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// The end of a command that failed.
    pub fn error(&self, e: &Error) {
        self.done();
        if self.json {
            #[derive(Serialize)]
            struct Line {
                error: WireError,
            }
            self.object(&Line { error: e.into() });
        } else {
            let red = if self.color { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "{}tcfs:{} {e}", red.0, red.1);
            if let Some(h) = e.hint_text() {
                let _ = writeln!(err, "  {}", h.replace('\n', "\n  "));
            }
        }
        self.flush();
    }

    /// Moves a bar; nothing unless stderr is a terminal.
    pub fn progress(&self, line: &ProgressLine) {
        if !self.bars {
            return;
        }
        let mut slot = self.bar.lock();
        // Each phase has a bar of its own.
        if slot.as_ref().is_none_or(|(what, _)| *what != line.what) {
            if let Some((_, old)) = slot.take() {
                old.finish_and_clear();
            }
            let bar = ProgressBar::with_draw_target(line.total, ProgressDrawTarget::stderr());
            bar.set_style(style(line));
            *slot = Some((line.what.clone(), bar));
        }
        if let Some((_, bar)) = slot.as_ref() {
            if let Some(total) = line.total {
                bar.set_length(total);
            }
            bar.set_prefix(line.what.clone());
            bar.set_message(line.path.clone().unwrap_or_default());
            bar.set_position(line.done);
        }
    }

    /// Takes the bar away.
    pub fn done(&self) {
        if let Some((_, bar)) = self.bar.lock().take() {
            bar.finish_and_clear();
        }
    }

    /// Writes out what is buffered.
    pub fn flush(&self) {
        check(self.stdout.lock().flush());
    }

    /// A time for people.
    pub fn time(&self, ms: i64) -> String {
        format::time(ms, self.offset)
    }

    /// The local time zone.
    pub fn offset(&self) -> UtcOffset {
        self.offset
    }

    /// A name for people: control characters escaped on terminals, as it is elsewhere.
    pub fn name(&self, name: &str) -> String {
        if self.terminal && name.chars().any(char::is_control) {
            name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
        } else {
            name.to_owned()
        }
    }

    /// Emphasised.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
    /// Good.
    pub fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }
    /// To be looked at.
    pub fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }
    /// Bad.
    pub fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let _ = self.stdout.lock().flush();
    }
}

fn style(line: &ProgressLine) -> ProgressStyle {
    let template = match (line.total, line.unit) {
        (Some(_), Unit::Bytes) => "{prefix:>10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}",
        (Some(_), Unit::Files) => "{prefix:>10} [{bar:30}] {pos}/{len} {per_sec} {eta} {wide_msg}",
        (None, Unit::Bytes) => "{prefix:>10} {spinner} {bytes} {bytes_per_sec} {wide_msg}",
        (None, Unit::Files) => "{prefix:>10} {spinner} {pos} {wide_msg}",
    };
    // The templates are constants; a test draws each.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn check(result: std::io::Result<()>) {
    if let Err(e) = result {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("tcfs: writing the output: {e}");
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_of_a_bar_is_valid() {
        for total in [None, Some(10)] {
            for unit in [Unit::Bytes, Unit::Files] {
                let line = ProgressLine { what: "x".into(), done: 1, total, unit, path: None };
                let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_style(style(&line));
                bar.set_position(5);
                assert_eq!(bar.position(), 5);
            }
        }
    }
}
