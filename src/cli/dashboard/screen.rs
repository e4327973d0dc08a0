//! The terminal while the dashboard has it.

use std::{
    io, panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ratatui::{DefaultTerminal, Frame};

/// A terminal that is drawn on until it is closed, by whoever comes first. Clones are the same one.
#[derive(Clone)]
pub struct Screen(Arc<Inner>);

struct Inner {
    terminal: Mutex<DefaultTerminal>,
    closed: AtomicBool,
}

impl Screen {
    /// Takes over the terminal; a panic gives it back before it is reported.
    ///
    /// # Errors
    /// If the terminal cannot do that.
    pub fn open() -> io::Result<Self> {
        let screen =
            Self(Arc::new(Inner { terminal: Mutex::new(ratatui::try_init()?), closed: AtomicBool::new(false) }));
        let closing = screen.clone();
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            closing.close();
            report(info);
        }));
        Ok(screen)
    }

    /// Whether the terminal has been given back.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Draws, unless it is closed. Whether that worked.
    pub fn draw(&self, draw: impl FnOnce(&mut Frame)) -> bool {
        let Ok(mut terminal) = self.0.terminal.lock() else {
            return false;
        };
        !self.is_closed() && terminal.draw(draw).is_ok()
    }

    /// Gives the terminal back.
    pub fn close(&self) {
        if self.0.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        // Waits for the drawing that goes on, but not for ever: it may be what panicked.
        for _ in 0..50 {
            if let Ok(mut terminal) = self.0.terminal.try_lock() {
                let _ = terminal.show_cursor();
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        // A terminal that has gone away needs no restoring.
        let _ = ratatui::try_restore();
    }
}
