//! Names of devices.

use super::{Base, Raw, Value, quoted};
use std::str::FromStr;

/// A name of a device: `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName(pub String);

impl FromStr for DeviceName {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let tame = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=32).contains(&s.len()) && s.chars().all(tame) && !s.starts_with('-') && !s.ends_with('-') {
            return Ok(DeviceName(s.to_owned()));
        }
        let near = DeviceName::from_host(s);
        Err(format!("a device name has 1 to 32 lower-case letters, digits and `-` inside; {s:?} is none, {:?} would be", near.0))
    }
}

impl DeviceName {
    /// The nearest name to a host name: its first label, lower case, other characters as `-`.
    pub fn from_host(host: &str) -> DeviceName {
        let label = host.split('.').next().unwrap_or("").to_lowercase();
        let mut out = String::new();
        for c in label.chars() {
            let c = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
            if out.len() < 32 && !(c == '-' && (out.is_empty() || out.ends_with('-'))) {
                out.push(c);
            }
        }
        let out = out.trim_end_matches('-');
        DeviceName(if out.is_empty() { "machine".to_owned() } else { out.to_owned() })
    }
}

impl Value for DeviceName {
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        raw.text("a name")?.parse()
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_device_names() {
        assert_eq!(DeviceName::from_host("Petting_Zoo--Mini.local").0, "petting-zoo-mini");
        assert_eq!(DeviceName::from_host("-.x").0, "machine");
        assert!("Yoga".parse::<DeviceName>().unwrap_err().contains("\"yoga\" would be"));
    }
}
