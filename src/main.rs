//! The program `elmo`; everything it does is a call of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_freed_memory();
    elmo::cli::main()
}

/// Training on a CPU allocates and frees the same tensors in every step. By default glibc gives large blocks back to
/// the system each time and gets them anew, page by page: a quarter of a step.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    const LARGE: libc::c_int = 1 << 30;
    // SAFETY: sets options of the allocator, before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
