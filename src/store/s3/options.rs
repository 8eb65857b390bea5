//! How to reach the S3 server, and what is refused as an address.
//!
//! Must: secrets are never shown.

use crate::error::{Error, Kind, Result};
use std::fmt;
use std::time::Duration;

/// How to reach the server.
#[derive(Clone)]
pub struct S3Options {
    /// `http://127.0.0.1:8333`; none: Amazon's.
    pub endpoint: Option<String>,
    /// Region that requests are signed for; none: `us-east-1`, which every other server accepts.
    pub region: Option<String>,
    /// Key id; without credentials requests are anonymous.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<String>,
    /// For temporary credentials.
    pub session_token: Option<String>,
    /// Permits `http://` to other machines: everything but the secret then crosses the network readable.
    pub allow_http: bool,
    /// To have a connection.
    pub connect_timeout: Duration,
    /// For one attempt; large bodies get more.
    pub try_timeout: Duration,
    /// For all attempts of a call together; large bodies get more.
    pub total_timeout: Duration,
    /// Attempts of a call that may be repeated.
    pub tries: u32,
    /// Requests at a time.
    pub concurrency: usize,
}

impl Default for S3Options {
    fn default() -> Self {
        S3Options {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
            connect_timeout: Duration::from_secs(5),
            try_timeout: Duration::from_secs(15),
            total_timeout: Duration::from_secs(45),
            tries: 4,
            concurrency: 32,
        }
    }
}

impl fmt::Debug for S3Options {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Checks the endpoint and gives it without a trailing slash.
pub(crate) fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<String> {
    let bad = |why: &str, hint: &str| Err(Error::new(Kind::Usage, format!("s3.endpoint {endpoint:?}: {why}")).hint(hint));
    let (secure, rest) = match (endpoint.strip_prefix("https://"), endpoint.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return bad("it is no http(s) address", "write http://127.0.0.1:8333 or https://s3.example.org"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.is_empty() {
        return bad("it names no host", "write http://127.0.0.1:8333 or https://s3.example.org");
    }
    if authority.contains('@') {
        return Err(Error::new(Kind::Usage, "s3.endpoint: credentials do not belong into the address").hint(CREDENTIALS));
    }
    let host = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or(""),
    };
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !secure && !local && !allow_http {
        return bad(
            "plain http to another machine: what is stored would cross the network readable",
            "use https, or set `allow_http = true` in `[s3]` (TCFS_S3_ALLOW_HTTP=true) on a network you trust",
        );
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// Hint where they are missing or refused.
pub(super) const CREDENTIALS: &str = "set TCFS_S3_ACCESS_KEY_ID and TCFS_S3_SECRET_ACCESS_KEY (or `[s3]` in the config file)";
