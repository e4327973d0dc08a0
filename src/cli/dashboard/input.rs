//! Whether there is anything to read from the terminal.
//!
//! crossterm loops for ever once the terminal has gone away (its window was closed, the connection dropped), so it is
//! asked for keys only where there are some.

use super::INTERVAL;

/// What there is to read.
pub enum Ready {
    /// Nothing within [`INTERVAL`].
    Nothing,
    /// Keys, perhaps.
    Something,
    /// Nothing ever again.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Gone,
}

/// Where keys come from.
#[cfg(target_os = "linux")]
pub struct Input(Option<std::fs::File>);

#[cfg(target_os = "linux")]
impl Input {
    /// Standard input if it is a terminal, else the terminal of the session: as crossterm chooses.
    pub fn open() -> Self {
        use std::io::{IsTerminal, stdin};
        Self(if stdin().is_terminal() { None } else { std::fs::File::open("/dev/tty").ok() })
    }

    /// Waits for at most [`INTERVAL`].
    pub fn wait(&self) -> Ready {
        use std::os::fd::AsRawFd;
        let fd = self.0.as_ref().map_or(libc::STDIN_FILENO, AsRawFd::as_raw_fd);
        let mut terminal = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which outlives the call.
        let ready = unsafe { libc::poll(&mut terminal, 1, INTERVAL.as_millis() as libc::c_int) };
        match ready {
            1 if terminal.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 => Ready::Gone,
            1 => Ready::Something,
            _ => Ready::Nothing,
        }
    }
}

/// Where keys come from.
#[cfg(not(target_os = "linux"))]
pub struct Input;

#[cfg(not(target_os = "linux"))]
impl Input {
    /// The terminal.
    pub fn open() -> Self {
        Self
    }

    /// Waits for at most [`INTERVAL`].
    pub fn wait(&self) -> Ready {
        match ratatui::crossterm::event::poll(INTERVAL) {
            Ok(true) => Ready::Something,
            Ok(false) => Ready::Nothing,
            Err(_) => {
                std::thread::sleep(INTERVAL);
                Ready::Nothing
            }
        }
    }
}
