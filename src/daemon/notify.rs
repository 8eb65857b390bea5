//! Tells the service manager (systemd, `Type=notify`) how the daemon is. Does nothing where nobody asked.

use sd_notify::NotifyState;

/// Everything that was to be mounted is mounted.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// A graceful stop has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

fn send(what: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(false, what) {
        tracing::debug!(error = %e, "telling the service manager failed");
    }
}
