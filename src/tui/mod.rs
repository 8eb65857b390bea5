//! `tcfs tui`: the drive full-screen, live.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | facts, where the person is, what a key does; pure |
//! | `draw` | cells from the state; pure |
//! | `link` | the way to the daemon |
//!
//! Must: the terminal is as it was when this ends, however it ends.

mod draw;
mod link;
mod state;

use crate::error::{Error, Kind, Result};
use draw::Look;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use state::{App, News, Press, Wish};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// How long the thread that reads keys waits at a time.
const KEYS: Duration = Duration::from_millis(200);
/// The screen is drawn anew at least so often: times on it are told by how long ago they are.
const REDRAW: Duration = Duration::from_secs(1);

/// What the terminal says.
enum Input {
    Key(Press),
    /// Ctrl-C, which the terminal does not turn into a signal now.
    Interrupt,
    Resized,
}

/// Runs until the person ends it. `socket`: the daemon's.
///
/// Errors: `Usage` without a terminal.
pub async fn run(socket: PathBuf) -> Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Error::new(Kind::Usage, "the full-screen view needs a terminal")
            .hint("`tcfs status`, `tcfs conflicts` and the others say the same to a pipe; --json to a program"));
    }
    let mut terminal = ratatui::try_init().map_err(|e| Error::io("taking the terminal over", e))?;
    let done = on(&mut terminal, socket).await;
    ratatui::restore();
    done
}

async fn on(terminal: &mut ratatui::DefaultTerminal, socket: PathBuf) -> Result<()> {
    let (tell, mut news) = mpsc::channel(256);
    let (wish, wishes) = mpsc::channel(16);
    let link = tokio::spawn(link::run(socket, tell, wishes));
    let over = Arc::new(AtomicBool::new(false));
    let (press, mut keys) = mpsc::channel(64);
    let reading = {
        let over = over.clone();
        std::thread::spawn(move || read_keys(&press, &over))
    };
    let mut app = App::new();
    let done = loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        if let Err(e) = terminal.draw(|f| draw::draw(f, &app, Look { now, zone: None })) {
            break Err(Error::io("drawing", e));
        }
        let heard = tokio::select! {
            n = news.recv() => n.map(Ok),
            k = keys.recv() => k.map(Err),
            () = tokio::time::sleep(REDRAW) => continue,
        };
        match heard {
            None => break Err(Error::new(Kind::Io, "the terminal cannot be read any more")),
            Some(Ok(n)) => {
                app.hear(n);
                // What came together is drawn together.
                while let Ok(n) = news.try_recv() {
                    app.hear(n);
                }
            }
            Some(Err(Input::Interrupt)) => break Ok(()),
            Some(Err(Input::Resized)) => {}
            Some(Err(Input::Key(k))) => match app.press(k) {
                Some(Wish::Quit) => break Ok(()),
                Some(w) if wish.try_send(w.clone()).is_err() => {
                    app.hear(News::Resolved(Err("the daemon is busy; try again".to_owned())));
                }
                _ => {}
            },
        }
    };
    over.store(true, Ordering::Relaxed);
    link.abort();
    drop(keys);
    let _ = tokio::task::spawn_blocking(move || reading.join()).await;
    done
}

/// Hands keys on until nobody wants them.
fn read_keys(to: &mpsc::Sender<Input>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let input = match event::poll(KEYS).and_then(|there| if there { event::read().map(Some) } else { Ok(None) }) {
            Ok(Some(Event::Key(k))) => input_of(k),
            Ok(Some(Event::Resize(..))) => Some(Input::Resized),
            Ok(_) => None,
            Err(_) => return,
        };
        if let Some(i) = input
            && to.blocking_send(i).is_err()
        {
            return;
        }
    }
}

fn input_of(k: KeyEvent) -> Option<Input> {
    if k.kind == KeyEventKind::Release {
        return None;
    }
    if k.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(k.code, KeyCode::Char('c')).then_some(Input::Interrupt);
    }
    let press = match k.code {
        KeyCode::Char(c) => Press::Char(c),
        KeyCode::Tab => Press::Next,
        KeyCode::BackTab => Press::Previous,
        KeyCode::Left => Press::Left,
        KeyCode::Right => Press::Right,
        KeyCode::Up => Press::Up,
        KeyCode::Down => Press::Down,
        KeyCode::PageUp => Press::PageUp,
        KeyCode::PageDown => Press::PageDown,
        KeyCode::Enter => Press::Enter,
        KeyCode::Esc => Press::Escape,
        _ => return None,
    };
    Some(Input::Key(press))
}
