//! S3 credentials: from our own keys, a shared-credentials file, or AWS's variables.
//!
//! The SDK's own chain (single sign-on, instance roles, web identity) is left out: it doubles the build. What it
//! would find can be handed over through any of the ways here.
//! Must: no error, log line or `Debug` output carries a secret.

use super::{Config, Origin};
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// What a request is signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// Access key.
    pub access_key_id: String,
    /// Secret key.
    pub secret_access_key: String,
    /// Token of temporary credentials.
    pub session_token: Option<String>,
    /// Where they come from, for people.
    pub source: String,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Credentials from {}", self.source)
    }
}

const WAYS: &str = "set TCFS_S3_ACCESS_KEY_ID and TCFS_S3_SECRET_ACCESS_KEY (or the same with _FILE), or s3.credentials_file in the config";

impl Config {
    /// The credentials, reading files where they stand in one. In this order: the keys `s3.access_key_id` and
    /// `s3.secret_access_key` (or their `_file`), `s3.credentials_file`, `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, `~/.aws/credentials`.
    pub fn s3_credentials(&self) -> Result<S3Credentials> {
        let s3 = &self.s3;
        let id = self.secret("s3.access_key_id", &s3.access_key_id, "s3.access_key_id_file", &s3.access_key_id_file)?;
        let secret = self.secret("s3.secret_access_key", &s3.secret_access_key, "s3.secret_access_key_file", &s3.secret_access_key_file)?;
        match (id, secret) {
            (Some(access_key_id), Some(secret_access_key)) => {
                let session_token = self.secret("s3.session_token", &s3.session_token, "s3.session_token_file", &s3.session_token_file)?;
                return Ok(S3Credentials { access_key_id, secret_access_key, session_token, source: "the configuration".to_owned() });
            }
            (None, None) => {}
            (Some(_), None) => return Err(Error::new(Kind::Usage, "s3.access_key_id is set, but s3.secret_access_key is not").hint(WAYS)),
            (None, Some(_)) => return Err(Error::new(Kind::Usage, "s3.secret_access_key is set, but s3.access_key_id is not").hint(WAYS)),
        }
        if let Some(file) = &s3.credentials_file {
            return self.shared_file(file);
        }
        let aws = |name: &str| self.aws_env.get(name).filter(|v| !v.is_empty()).cloned();
        if let (Some(access_key_id), Some(secret_access_key)) = (aws("AWS_ACCESS_KEY_ID"), aws("AWS_SECRET_ACCESS_KEY")) {
            let session_token = aws("AWS_SESSION_TOKEN");
            return Ok(S3Credentials {
                access_key_id,
                secret_access_key,
                session_token,
                source: "environment AWS_ACCESS_KEY_ID".to_owned(),
            });
        }
        if let Some(file) = aws("AWS_SHARED_CREDENTIALS_FILE") {
            return self.shared_file(Path::new(&file));
        }
        if let Some(file) = self.home.as_ref().map(|h| h.join(".aws/credentials"))
            && file.exists()
        {
            return self.shared_file(&file);
        }
        Err(Error::new(Kind::Usage, format!("there are no credentials for the store {}", self.store)).hint(WAYS))
    }

    fn shared_file(&self, file: &Path) -> Result<S3Credentials> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::new(Kind::Usage, format!("reading the credentials file {}", file.display())).source(e).hint(WAYS))?;
        let profile = &self.s3.profile;
        let found = shared(&text, profile).ok_or_else(|| {
            let from = match self.origin("s3.profile") {
                Origin::Ambient(n) | Origin::Env(n) => format!(" (from {n})"),
                _ => String::new(),
            };
            Error::new(Kind::Usage, format!("{} has no profile [{profile}]{from}", file.display())).hint("s3.profile names another")
        })?;
        let missing = |what: &str| Error::new(Kind::Usage, format!("profile [{profile}] in {} has no {what}", file.display()));
        let get = |what: &str| found.iter().find(|(k, _)| k == what).map(|(_, v)| v.clone());
        Ok(S3Credentials {
            access_key_id: get("aws_access_key_id").ok_or_else(|| missing("aws_access_key_id"))?,
            secret_access_key: get("aws_secret_access_key").ok_or_else(|| missing("aws_secret_access_key"))?,
            session_token: get("aws_session_token"),
            source: format!("{} [{profile}]", file.display()),
        })
    }
}

/// The pairs of one section of AWS's shared-credentials format; none if there is no such section.
fn shared(text: &str, profile: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            let name = name.trim();
            inside = name == profile || name.strip_prefix("profile ").is_some_and(|n| n.trim() == profile);
            if inside {
                found.get_or_insert_with(Vec::new);
            }
        } else if let (true, Some(list), Some((k, v))) = (inside, found.as_mut(), line.split_once('=')) {
            list.push((k.trim().to_ascii_lowercase(), v.trim().to_owned()));
        }
    }
    found
}

/// The content of a secret file without the newline at its end.
pub fn read_secret(key: &str, file: &Path) -> Result<String> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Error::new(Kind::Usage, format!("{key}: reading {}", file.display())).source(e))?;
    match text.trim() {
        "" => Err(Error::new(Kind::Usage, format!("{key}: {} is empty", file.display()))),
        t => Ok(t.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_format_is_read_by_section() {
        let text = "# x\n[default]\naws_access_key_id = A\naws_secret_access_key=B = C\n\n[ other ]\nAWS_ACCESS_KEY_ID=O\n";
        assert_eq!(
            shared(text, "default").unwrap(),
            [("aws_access_key_id".to_owned(), "A".to_owned()), ("aws_secret_access_key".to_owned(), "B = C".to_owned())]
        );
        assert_eq!(shared(text, "other").unwrap(), [("aws_access_key_id".to_owned(), "O".to_owned())]);
        assert_eq!(shared(text, "none"), None);
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let c = S3Credentials { access_key_id: "AKIA".into(), secret_access_key: "hush".into(), session_token: None, source: "x".into() };
        assert_eq!(format!("{c:?}"), "S3Credentials from x");
    }
}
