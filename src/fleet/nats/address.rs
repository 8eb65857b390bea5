//! Where the servers are, and the logins that people write into their addresses.
//!
//! Must: what the client is given to connect to has no secret in it: it may print that.

use super::NatsOptions;
use crate::error::{Error, Kind, Result};
use crate::store::open::unescape;
use async_nats::ServerAddr;

/// Addresses without the logins in them: what the client is given it may print.
pub(super) fn servers(o: &NatsOptions) -> Result<Vec<ServerAddr>> {
    let one = |u: &str| {
        let bad = |e: &dyn std::fmt::Display| {
            Error::new(Kind::Usage, format!("nats_url: {:?} is no address of a NATS server: {e}", o.shown_url))
                .hint("for example nats://127.0.0.1:4222")
        };
        login(u).0.parse::<ServerAddr>().map_err(|e| bad(&e))
    };
    let all = addresses(&o.url).map(one).collect::<Result<Vec<_>>>()?;
    match all.is_empty() {
        true => Err(Error::new(Kind::Usage, "nats_url names no server").hint("for example nats://127.0.0.1:4222")),
        false => Ok(all),
    }
}

pub(super) fn addresses(url: &str) -> impl Iterator<Item = &str> {
    url.split(',').map(str::trim).filter(|u| !u.is_empty())
}

/// A URL without user and password (or token), and those.
pub(super) fn login(url: &str) -> (String, Option<(String, Option<String>)>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(h, p)| (h, p));
    let Some((who, host)) = host.rsplit_once('@') else { return (url.to_owned(), None) };
    let (user, password) = who.split_once(':').map_or((who, None), |(u, p)| (u, Some(unescape(p))));
    let slash = if path.is_empty() { "" } else { "/" };
    (format!("{scheme}://{host}{slash}{path}"), Some((unescape(user), password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_out_of_addresses() {
        let who = |u: &str, p: Option<&str>| Some((u.to_owned(), p.map(str::to_owned)));
        assert_eq!(login("nats://h:1"), ("nats://h:1".into(), None));
        assert_eq!(login("nats://u:p@h:1"), ("nats://h:1".into(), who("u", Some("p"))));
        assert_eq!(login("tls://u:p%40%2f@s@h:1/x@y"), ("tls://h:1/x@y".into(), who("u", Some("p@/@s"))));
        assert_eq!(login("token@h"), ("nats://h".into(), who("token", None)));
        assert_eq!(unescape("100%"), "100%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
        let o = NatsOptions { url: "nats://u:secret@h:1, tls://k:2".into(), ..NatsOptions::default() };
        assert!(!format!("{:?} {o:?}", servers(&o).unwrap()).contains("secret"));
        for url in ["", " , ", "nats://a b", "nats://u:secret@h:port"] {
            let e = servers(&NatsOptions { url: url.into(), shown_url: "…".into(), ..NatsOptions::default() }).unwrap_err();
            assert!(e.kind() == Kind::Usage && !e.to_string().contains("secret"), "{e}");
        }
    }
}
