//! `tcfs config`.

use super::Global;
use super::context::sources;
use super::output::Output;
use super::printed::Printed;
use crate::daemon::config::{self, StoreUrl};
use crate::error::{Error, Kind, Result};
use clap::{Args, Subcommand};

/// Show and check the configuration
///
/// Each key is an environment variable too: store is TCFS_STORE, s3.endpoint is TCFS_S3_ENDPOINT. Flags win over the
/// environment, the environment over the file, the file over the defaults.
///
/// S3 credentials are taken, in this order, from s3.access_key_id and s3.secret_access_key (or the same with _file),
/// s3.credentials_file with s3.profile (AWS's shared format), AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and
/// ~/.aws/credentials. Single sign-on, web identity and instance roles are not asked: hand over what they give.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs config show
  tcfs config show store
  tcfs config check && tcfs daemon restart

A config file:
  store = \"s3://tcfs/default\"
  device_name = \"yoga\"
  [s3]
  endpoint = \"https://s3.example.org:8333\"
  credentials_file = \"~/.aws/credentials\"
  [cache]
  max_bytes = \"20GiB\"")]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print each value with its source; secrets are not shown
    Show {
        /// Only this key
        key: Option<String>,
    },
    /// Check the configuration, and that files with secrets can be read
    Check,
    /// Print the path of the config file, whether or not it exists
    Path,
}

impl Config {
    pub fn run(&self, global: &Global, out: &Output) -> Result<u8> {
        let sources = sources(global);
        if let What::Path = self.what {
            let (path, _) = config::Config::file_of(&sources)?;
            let path =
                path.ok_or_else(|| Error::new(Kind::Usage, "HOME is not set, so there is no config file").hint("--config FILE names one"))?;
            out.object(&Printed::ConfigPath { exists: path.exists(), path: path.clone() });
            out.line(path.to_string_lossy());
            return Ok(0);
        }
        let config = config::Config::load(&sources)?;
        match &self.what {
            What::Show { key } => show(&config, key.as_deref(), out),
            What::Check | What::Path => check(&config, out),
        }
    }
}

fn show(config: &config::Config, key: Option<&str>, out: &Output) -> Result<u8> {
    if let Some(k) = key
        && config::keys::find(k).is_none()
    {
        let e = Error::new(Kind::Usage, format!("there is no key `{k}`"));
        return Err(match config::keys::nearest(k) {
            Some(near) => e.hint(format!("did you mean `{near}`?")),
            None => e.hint("`tcfs config show` lists all keys"),
        });
    }
    let rows: Vec<_> = config.show().into_iter().filter(|s| key.is_none_or(|k| s.key == k)).collect();
    let width = |of: fn(&config::Shown) -> usize| rows.iter().map(of).max().unwrap_or(0).min(60);
    let (keys, values) = (width(|r| r.key.chars().count()), width(|r| r.value.chars().count()));
    for r in &rows {
        out.object(&Printed::Setting(r.clone()));
        if key.is_some() {
            out.line(format!("# {} ({})", r.about, r.env));
        }
        out.line(format!("{:<keys$} = {:<values$}  # {}", r.key, r.value, r.source));
    }
    Ok(0)
}

fn check(config: &config::Config, out: &Output) -> Result<u8> {
    if let StoreUrl::S3 { .. } = config.store {
        config.s3_credentials()?;
    }
    config.nats()?;
    for w in config.warnings() {
        out.note(format!("warning: {w}"));
    }
    let file = config.file.as_ref().map(|f| f.display().to_string());
    out.object(&Printed::ConfigChecked { file: file.clone(), warnings: config.warnings() });
    out.line(format!("{}: ok", file.as_deref().unwrap_or("no config file, all defaults")));
    Ok(0)
}
