//! Ctrl-C, and the signals that mean the same.

use anyhow::{Context, Result};

/// Calls `stop`, on a thread of its own, whenever the user presses Ctrl-C or, on Linux, the system asks to end
/// (SIGTERM) or the terminal is closed (SIGHUP, unless it is ignored, as `nohup` does).
///
/// # Errors
/// If signals cannot be listened for.
pub fn on_interrupt(stop: impl FnMut() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(stop).context("cannot listen for Ctrl-C")?;
    #[cfg(target_os = "linux")]
    {
        extern "C" fn interrupt(_: libc::c_int) {
            // SAFETY: may be called from a signal handler.
            unsafe { libc::raise(libc::SIGINT) };
        }
        for signal in [libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler does nothing but raise another signal.
            unsafe {
                if libc::signal(signal, interrupt as *const () as libc::sighandler_t) == libc::SIG_IGN {
                    libc::signal(signal, libc::SIG_IGN);
                }
            }
        }
    }
    Ok(())
}
