//! Every way to stop a training does the same: it stops soon, keeps the checkpoints, says so, and exits with 1.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A training that would take hours: a very small encoder on `food`.
fn training(runs: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elmo"));
    command.args(["train", "dataset=food", "dataset.training.epochs=100000", "log_fname=run", "--device", "cpu"]);
    command.arg(format!("dataset_path={}/datasets", env!("CARGO_MANIFEST_DIR")));
    command.arg("--runs").arg(runs);
    for (key, value) in [
        ("dataset.data.max_len", 16),
        ("dataset.model.encoder.scratch.hidden_size", 32),
        ("dataset.model.encoder.scratch.intermediate_size", 64),
        ("dataset.model.encoder.scratch.num_hidden_layers", 1),
        ("dataset.model.encoder.scratch.vocab_size", 2000),
    ] {
        command.arg(format!("{key}={value}"));
    }
    command
}

/// Both ends of a pseudo-terminal: ours, and the program's.
fn terminal() -> (File, File) {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: all pointers are valid or null, and the descriptors are owned by nobody else.
    unsafe {
        let made = libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size);
        assert_eq!(made, 0, "no pseudo-terminal: {}", std::io::Error::last_os_error());
        // A program that inherits our end keeps its own terminal alive.
        libc::fcntl(ours, libc::F_SETFD, libc::FD_CLOEXEC);
        (File::from_raw_fd(ours), File::from_raw_fd(theirs))
    }
}

/// Whether the terminal waits for whole lines, echoes them, and makes signals of Ctrl-C, as a shell left it.
fn is_as_before(terminal: &File) -> bool {
    // SAFETY: a `termios` of zeros is valid, and is filled in.
    let flags = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut settings), 0);
        settings.c_lflag
    };
    let wanted = libc::ICANON | libc::ECHO | libc::ISIG;
    flags & wanted == wanted
}

fn wait(child: &mut Child) -> i32 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("it goes on");
}

/// Waits until an epoch is complete.
fn wait_for_checkpoint(runs: &Path) {
    let start = Instant::now();
    while !runs.join("run/checkpoint/index.json").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint");
        thread::sleep(Duration::from_millis(50));
    }
}

enum Way {
    Keys(&'static [u8]),
    Signal(libc::c_int),
}
use Way::{Keys, Signal};

fn send(way: &Way, child: &Child, terminal: Option<&File>) {
    match way {
        Keys(keys) => {
            for key in *keys {
                std::io::Write::write_all(&mut terminal.unwrap(), &[*key]).unwrap();
                thread::sleep(Duration::from_millis(300));
            }
        }
        // SAFETY: the child has not been waited for.
        Signal(signal) => unsafe {
            libc::kill(child.id() as libc::pid_t, *signal);
        },
    }
}

/// Starts a training in a terminal of its own: the program, our end, and the other end.
fn start_in_terminal(runs: &Path, arguments: &[&str]) -> (Child, File, File) {
    let (ours, theirs) = terminal();
    let mut command = training(runs);
    command.args(arguments).env("TERM", "xterm-256color");
    command.stdin(theirs.try_clone().unwrap());
    command.stdout(theirs.try_clone().unwrap());
    command.stderr(theirs.try_clone().unwrap());
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    (command.spawn().unwrap(), ours, theirs)
}

#[test]
fn in_a_terminal() {
    for (arguments, way) in [
        (&[][..], Keys(b"\x03")),
        (&[], Keys(b"\x03\x03")),
        (&[], Keys(b"qs")),
        (&[], Keys(b"qk")),
        (&[], Keys(b"q\x03")),
        (&[], Signal(libc::SIGINT)),
        (&[], Signal(libc::SIGTERM)),
        (&["--no-tui"], Keys(b"\x03")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, ours, theirs) = start_in_terminal(dir.path(), arguments);
        let mut reading = ours.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let (mut all, mut some) = (Vec::new(), [0; 4096]);
            // Ends with an error once nobody has the other end any more.
            while let Ok(count @ 1..) = reading.read(&mut some) {
                all.extend_from_slice(&some[..count]);
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        wait_for_checkpoint(dir.path());
        send(&way, &child, Some(&ours));
        let code = wait(&mut child);
        assert!(is_as_before(&theirs));
        drop(theirs);
        let output = reader.join().unwrap();
        let after = output.rsplit("\x1b[?1049l").next().unwrap();
        let last = &after[after.len().saturating_sub(2000)..];
        assert_eq!(code, 1, "{last}");
        assert!(last.contains("error: interrupted"), "{last}");
        assert!(last.contains("elmo evaluate") && last.contains("run --checkpoint last"), "{last}");
        assert!(!output.contains("panicked") && !last.contains("test P@1"), "{last}");
        assert!(!dir.path().join("run/result.json").exists());
    }
}

/// Its window is closed, or the connection is lost.
#[test]
fn a_terminal_that_goes_away() {
    for arguments in [&[][..], &["--no-tui"]] {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, mut ours, theirs) = start_in_terminal(dir.path(), arguments);
        // SAFETY: the descriptor is ours.
        unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        while !dir.path().join("run/checkpoint/index.json").exists() {
            // Somebody has to read what is drawn, or the program waits for that.
            let _ = ours.read(&mut [0; 65536]);
            thread::sleep(Duration::from_millis(10));
        }
        drop((ours, theirs));
        assert_eq!(wait(&mut child), 1);
        assert!(!dir.path().join("run/result.json").exists());
    }
}

#[test]
fn without_a_terminal() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = training(dir.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_checkpoint(dir.path());
        send(&Signal(signal), &child, None);
        assert_eq!(wait(&mut child), 1);
        let mut text = String::new();
        child.stderr.unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("error: interrupted") && text.contains("--checkpoint last"), "{text}");
        assert!(!dir.path().join("run/result.json").exists());
    }
}
