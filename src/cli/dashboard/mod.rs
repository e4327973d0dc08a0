//! What a training shows in a terminal: how far it is, its loss, and the metrics of its epochs.
//!
//! burn-train has a dashboard, but it ignores Ctrl-C, ends by a panic or with exit code 0 depending on the key, and
//! draws a point for every step, also for those that computed no loss.

mod input;
mod screen;
mod view;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use input::{Input, Ready};
use ratatui::crossterm::event;
use screen::Screen;
use view::{Action, View};

use super::stop::Stop;
use crate::train::Event;

/// The terminal is drawn, and keys are looked for, this often.
const INTERVAL: Duration = Duration::from_millis(100);

/// A dashboard on the terminal, until it is dropped.
pub struct Dashboard {
    shown: Shown,
    screen: Screen,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// What a dashboard shows; clones are the same.
#[derive(Clone)]
pub struct Shown(Arc<Mutex<View>>);

impl Shown {
    fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what happened; `line` is what a run without a dashboard would print of it.
    pub fn tell(&self, event: &Event, line: Option<&str>) {
        self.lock().tell(event, line);
    }
}

impl Dashboard {
    /// Takes over the terminal. `title` says what is trained; keys that stop the training go to `stop`.
    ///
    /// # Errors
    /// If the terminal cannot be taken over.
    pub fn start(title: String, stop: Stop) -> io::Result<Self> {
        let shown = Shown(Arc::new(Mutex::new(View::new(title))));
        let screen = Screen::open()?;
        let closed = screen.clone();
        stop.set_dashboard(Some(Box::new(move || closed.close())));
        let thread = {
            let (shown, screen, stop) = (shown.clone(), screen.clone(), stop.clone());
            thread::spawn(move || run(&shown, &screen, &stop))
        };
        Ok(Self { shown, screen, stop, thread: Some(thread) })
    }

    /// What it shows.
    pub fn shown(&self) -> Shown {
        self.shown.clone()
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.screen.close();
        self.stop.set_dashboard(None);
        // It ends with the screen, but is not waited for for ever: it may hang in a terminal that has gone away.
        let Some(thread) = self.thread.take() else { return };
        for _ in 0..20 {
            if thread.is_finished() {
                // If it has panicked, that has been said.
                let _ = thread.join();
                return;
            }
            thread::sleep(INTERVAL / 2);
        }
    }
}

/// Draws and listens until the screen is closed or the terminal has gone away.
fn run(shown: &Shown, screen: &Screen, stop: &Stop) {
    let input = Input::open();
    loop {
        let is_stopping = stop.is_requested();
        if !screen.draw(|frame| shown.lock().draw(frame, is_stopping)) {
            return;
        }
        match input.wait() {
            Ready::Nothing => continue,
            Ready::Gone => return,
            Ready::Something => {}
        }
        while !screen.is_closed() && event::poll(Duration::ZERO).unwrap_or(false) {
            let Ok(event) = event::read() else { break };
            let action = shown.lock().on_event(&event);
            match action {
                Action::Nothing => {}
                Action::Interrupt => stop.request(),
                Action::AfterStep => stop.after_step(),
                Action::AtOnce => stop.at_once(),
            }
        }
    }
}
