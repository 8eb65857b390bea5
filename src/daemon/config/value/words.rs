//! Values that are one of some words.

use super::{Base, Raw, Value, quoted};
use std::str::FromStr;

/// Declares an enum whose values are words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// The word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                match s {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("expected one of {}, found {s:?}", [$($word),+].join(", "))),
                }
            }
        }
        impl Value for $name {
            fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
                raw.text(&format!("one of {}", [$($word),+].join(", ")))?.parse()
            }
            fn show(&self) -> Option<String> {
                Some(quoted(self.as_str()))
            }
        }
    };
}

words!(
    /// What a path in conflict shows on this machine.
    ConflictMode {
        /// The winner, the same on every device; losers are siblings.
        Auto = "auto",
        /// This device's own head, else the winner; the person is told.
        Interactive = "interactive",
        /// This device's own head, else the winner; siblings are hidden until asked for.
        Defer = "defer",
    }
);

words!(
    /// How git repositories travel.
    GitSyncMode {
        /// Each repository as one unit.
        Bundle = "bundle",
        /// The files of `.git` as files.
        Raw = "raw",
    }
);

words!(
    /// When a write counts as done.
    WriteMode {
        /// `close` returns when the bytes are safe on this machine; publishing follows in the background.
        Back = "back",
    }
);

words!(
    /// How much the log tells.
    LogLevel {
        /// Only what failed.
        Error = "error",
        /// And what somebody should look at.
        Warn = "warn",
        /// And what happens in the large.
        Info = "info",
        /// And each step.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
);
