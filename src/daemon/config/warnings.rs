//! What is odd in a configuration and no error.

use super::keys::KEYS;
use super::value::StoreUrl;
use super::{Config, GitSyncMode};

impl Config {
    /// What is odd but no error; for `config check`, `doctor`, `mount` and the log.
    pub fn warnings(&self) -> Vec<String> {
        let mut out = self.warnings.clone();
        if self.sync_git_dirs && self.git_sync_mode == GitSyncMode::Raw {
            let why = "git_sync_mode is raw: .git is carried file by file, and what two machines do to a repository at once can break it";
            out.push(format!("{why}; bundle carries it as one unit"));
        }
        if self.nats_url.is_none() && KEYS.iter().any(|k| k.name.starts_with("nats.") && self.origins.contains_key(k.name)) {
            out.push("[nats] is set but nats_url is not, so there is no bus".to_owned());
        }
        if let (Some(e), StoreUrl::S3 { .. }) = (&self.s3.endpoint, &self.store)
            && let Err(e) = crate::store::s3::check_endpoint(e, self.s3.allow_http)
        {
            out.push(e.to_string());
        }
        out
    }
}
