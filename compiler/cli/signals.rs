//! Signals beside Ctrl-C.

/// A file that grows beyond the user's limit (`ulimit -f`) is an error of writing, not the end of the process: so the temporary
/// file goes, and the message names the output.
pub fn survive_size_limit() {
    #[cfg(unix)]
    {
        let heard = std::sync::Arc::default();
        // Without a handler the process ends, as before.
        let _ = signal_hook::flag::register(rustix::process::Signal::XFSZ.as_raw(), heard);
    }
}
