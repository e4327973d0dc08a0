//! How a training is stopped: every key, signal and menu entry ends up here, and so they all do the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    error::Error,
    run::RunFolder,
    train::{Interrupter, interrupted},
};

/// The one way to stop a training. Clones are the same one.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Once there is a training that can stop after a step: what stops it, and where its checkpoints are.
    training: Option<(Interrupter, RunFolder)>,
    /// While there is a dashboard: gives the terminal back, before the program ends.
    close_dashboard: Option<Box<dyn Fn() + Send>>,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is a training that stops after its current step.
    pub fn begin(&self, interrupter: Interrupter, folder: RunFolder) {
        self.lock().training = Some((interrupter, folder));
    }

    /// From now on, or no longer, there is a dashboard; `close` gives the terminal back.
    #[cfg(feature = "tui")]
    pub fn set_dashboard(&self, close: Option<Box<dyn Fn() + Send>>) {
        self.lock().close_dashboard = close;
    }

    /// Whether the training has been asked to stop.
    pub fn is_requested(&self) -> bool {
        let state = self.lock();
        state.training.as_ref().is_some_and(|(training, _)| training.should_stop())
    }

    /// Ctrl-C or a signal: stops after the current step; at once if that has been asked for already.
    pub fn request(&self) {
        match self.is_requested() {
            true => self.at_once(),
            false => self.after_step(),
        }
    }

    /// Stops after the current step; at once if nothing is trained yet.
    pub fn after_step(&self) {
        let state = self.lock();
        let Some((training, _)) = &state.training else {
            drop(state);
            self.at_once();
        };
        training.stop();
        if state.close_dashboard.is_none() {
            super::complain("stopping after this step (Ctrl-C again: at once)");
        }
    }

    /// Ends the program. Checkpoints are complete or not there.
    pub fn at_once(&self) -> ! {
        let state = self.lock();
        if let Some(close) = &state.close_dashboard {
            close();
        }
        let error = match &state.training {
            None => Error::Interrupted { hint: Some("the training had not begun".into()) },
            Some((_, folder)) => interrupted(folder),
        };
        super::complain(&format!("error: {error}"));
        std::process::exit(1);
    }
}
