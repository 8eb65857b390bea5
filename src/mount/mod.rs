//! Front ends of the drive: they convert between a protocol and [`crate::vfs`], and decide nothing.
//!
//! Must: no thread of an adapter ever waits for the network.

#[cfg(not(target_os = "macos"))]
pub mod fuse;
pub mod nfs;

/// How the names of the threads begin that take a kernel's requests: nobody else answers what such a thread has taken.
pub const THREADS_NAMED: &str = "fuser-";
