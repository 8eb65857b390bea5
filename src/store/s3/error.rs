//! What the answers of an S3 server mean.
//!
//! Must: a bucket that was there before and has gone is `Unavailable`: nothing in it counts as not found.

use super::S3Store;
use super::options::CREDENTIALS;
use crate::error::{Error, Kind};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use std::sync::atomic::Ordering;

/// The code of a bucket that is not there.
pub(super) const NO_BUCKET: &str = "NoSuchBucket";

/// What an answer of the server means to a caller.
pub(super) fn kind_of(status: u16, code: &str) -> Kind {
    match (status, code) {
        (_, "SlowDown" | "RequestTimeout" | "InternalError") => Kind::Unavailable,
        (_, "QuotaExceeded" | "XMinioStorageFull") | (507, _) => Kind::NoSpace,
        (404, _) => Kind::NotFound,
        (401 | 403, _) => Kind::Unauthorized,
        (412, _) => Kind::Exists,
        (409, _) => Kind::Busy,
        (413, _) => Kind::TooBig,
        (501, _) => Kind::Unsupported,
        (408 | 429 | 500.., _) => Kind::Unavailable,
        // Another region or another server: nothing that waiting changes.
        (300..=399, _) | (400, "AuthorizationHeaderMalformed") => Kind::Usage,
        _ => Kind::Invalid,
    }
}

/// The innermost cause of a failed connection: "Connection refused", not three wrappings of it.
fn root_cause(e: &aws_sdk_s3::error::ConnectorError) -> String {
    let mut inner: &(dyn std::error::Error + 'static) = e;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

impl S3Store {
    /// Our error for the SDK's.
    pub(super) fn fail<E>(&self, what: &str, e: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let doing = format!("{what} in {}", self.place);
        let (status, code) = match &e {
            SdkError::ServiceError(s) => (s.raw().status().as_u16(), s.err().code().unwrap_or("").to_owned()),
            SdkError::TimeoutError(_) => return Error::new(Kind::Timeout, format!("{doing}: no answer in time")),
            SdkError::ConstructionFailure(_) => {
                return Error::new(Kind::Usage, format!("{doing}: {}", DisplayErrorContext(&e))).hint(CREDENTIALS);
            }
            SdkError::DispatchFailure(d) => {
                let kind = if d.is_timeout() { Kind::Timeout } else { Kind::Unavailable };
                let why = d.as_connector_error().map_or_else(|| "no connection".to_owned(), root_cause);
                return Error::new(kind, format!("{doing}: {why}")).hint("is the server running and `s3.endpoint` right?");
            }
            _ => return Error::new(Kind::Unavailable, format!("{doing}: {}", DisplayErrorContext(&e))),
        };
        let kind = kind_of(status, &code);
        let why = match &e {
            SdkError::ServiceError(s) => s.err().message().unwrap_or("").to_owned(),
            _ => String::new(),
        };
        let shown: String = why.chars().take(300).collect();
        let error = Error::new(kind, format!("{doing}: {status} {code} {shown}").trim_end().to_owned());
        match (kind, code.as_str()) {
            (_, NO_BUCKET) if self.seen.load(Ordering::Relaxed) => {
                Error::new(Kind::Unavailable, format!("{doing}: the bucket was there before and has gone"))
            }
            (_, "RequestTimeTooSkewed") => error.hint("this machine's clock is wrong: set it"),
            (Kind::Unauthorized, _) => error.hint(CREDENTIALS),
            (Kind::Usage, _) => error.hint("check `s3.region` and `s3.endpoint`"),
            _ => error,
        }
    }
}
