//! The S3 store: any server that speaks the plain core of S3, path-style, signed with fixed credentials.
//!
//! Must: no put is sent twice on a key that another writer may write otherwise (`keys::may_retry_put`): a first attempt
//! that timed out may still land after somebody else's put. The SDK's own retries are off for that reason.
//! Must: every call ends: connect, attempt and total time-outs, a stalled body included.
//! Must: a bucket that was seen and is gone is `Unavailable`, never made again in silence.
//! Needed of the server: put, get, head, list (v2), delete. Not needed: conditional puts, checksums in trailers,
//! ordered or fresh listings, virtual hosts.
//! Bodies go in one put: 10, 16 and 64 MiB took SeaweedFS 147, 236 and 1071 ms in one request, 157, 211 and 977 ms in
//! parallel parts; that pays neither for the three kinds of request more nor for the abandoned parts to clean up.

use super::{MAX_OBJECT, ObjectMeta, Page, PutMode, PutOutcome, Store, keys};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_smithy_http_client::tls;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

/// Slowest line on which bodies still get through before their time-out: 1 Mbit/s.
const SLOWEST_BYTES_PER_SECOND: u64 = 128 * 1024;
/// KiB of bodies being sent at a time. Enough for any line; and a slow line shared by more than that would let every
/// one of them time out.
const UPLOAD_KIB: u32 = 16 * 1024;
/// First wait before another attempt; doubled each time, and a random part of it is waited.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a put that must be the first one waits before it looks whether it was, on servers that may ignore the
/// condition: longer than two writers' requests overlap.
const SETTLE: Duration = Duration::from_millis(300);
/// Marks a page token, so that it is not taken for a key to start after.
const TOKEN: char = '\u{1}';

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

/// A bucket on an S3 server.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// For messages.
    place: String,
    /// Amazon wants a bucket's region named when it is made.
    location: Option<String>,
    options: S3Options,
    slots: Semaphore,
    /// KiB that may still be sent at the same time.
    upload: Semaphore,
    /// Whether the bucket was there at some time.
    seen: AtomicBool,
}

impl S3Store {
    /// A store in `bucket`. Contacts nobody yet; the bucket is made by the first put if it is missing.
    pub fn new(bucket: &str, options: &S3Options) -> Result<Self> {
        let endpoint = options.endpoint.as_deref().map(|e| check_endpoint(e, options.allow_http)).transpose()?;
        let region = options.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .region(Region::new(region.clone()))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build());
        config = match (&options.access_key_id, &options.secret_access_key) {
            (Some(id), Some(secret)) => {
                config.credentials_provider(Credentials::new(id, secret, options.session_token.clone(), None, "tcfs"))
            }
            (None, None) => config.allow_no_auth(),
            _ => {
                let what = "S3 credentials: key id and secret must both be given, or neither";
                return Err(Error::new(Kind::Usage, what).hint(CREDENTIALS));
            }
        };
        if let Some(e) = &endpoint {
            config = config.endpoint_url(e);
        }
        let place = match &endpoint {
            Some(e) => format!("s3://{bucket} at {e}"),
            None => format!("s3://{bucket} in {region}"),
        };
        Ok(S3Store {
            client: Client::from_conf(config.build()),
            bucket: bucket.to_owned(),
            place,
            location: (endpoint.is_none() && region != "us-east-1").then_some(region),
            slots: Semaphore::new(options.concurrency.max(1)),
            upload: Semaphore::new(UPLOAD_KIB as usize),
            options: options.clone(),
            seen: AtomicBool::new(false),
        })
    }

    /// A call that sends a body: its time-outs are stretched for what it and its neighbours have to send.
    async fn send<F: Future<Output = Result<PutOutcome>>>(&self, key: &str, size: usize, attempt: impl Fn() -> F) -> Result<PutOutcome> {
        let closed = |_| Error::new(Kind::Interrupted, format!("putting {key}: the store is closed"));
        let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(UPLOAD_KIB);
        let _share = self.upload.acquire_many(kib.min(UPLOAD_KIB)).await.map_err(closed)?;
        let under_way = (UPLOAD_KIB as usize - self.upload.available_permits()) * 1024;
        let extra = Duration::from_secs(under_way.max(size) as u64 / SLOWEST_BYTES_PER_SECOND);
        self.call(&format!("putting {key}"), keys::may_retry_put(key), extra, attempt).await
    }

    /// Runs one call: bounded in number, each attempt and all together bounded in time, repeated if it may be.
    async fn call<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        repeat: bool,
        extra: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let closed = |_| Error::new(Kind::Interrupted, format!("{what}: the store is closed"));
        let _slot = self.slots.acquire().await.map_err(closed)?;
        let deadline = Instant::now() + self.options.total_timeout + extra;
        let mut tried = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = left.min(self.options.try_timeout + extra);
            let result = match timeout(limit, attempt()).await {
                Ok(r) => r,
                Err(_) => Err(Error::new(Kind::Timeout, format!("{what}: {} did not answer within {limit:?}", self.place))),
            };
            tried += 1;
            match result {
                Err(e) if repeat && e.kind().is_transient() && tried < self.options.tries => {
                    let most = BACKOFF.saturating_mul(1 << (tried - 1).min(16)).min(BACKOFF_MAX);
                    let wait = most.mul_f64(0.1 + 0.9 * fastrand::f64());
                    if Instant::now() + wait >= deadline {
                        return Err(e);
                    }
                    tracing::debug!("attempt {tried}: {e}; again in {wait:?}");
                    sleep(wait).await;
                }
                r => return r,
            }
        }
    }

    /// Our error for the SDK's.
    fn fail<E>(&self, what: &str, e: SdkError<E, HttpResponse>) -> Error
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

    /// One put, without looking before or after.
    async fn put_once(&self, key: &str, body: &Bytes, only_if_absent: bool) -> Result<PutOutcome> {
        let send = || async {
            let request = self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(body.clone()));
            let request = if only_if_absent { request.if_none_match("*") } else { request };
            request.send().await
        };
        let mut sent = send().await;
        if let Err(SdkError::ServiceError(s)) = &sent
            && s.err().code() == Some(NO_BUCKET)
            && !self.seen.load(Ordering::Relaxed)
        {
            self.create_bucket().await?;
            sent = send().await;
        }
        match sent {
            Ok(_) => {
                self.seen.store(true, Ordering::Relaxed);
                Ok(PutOutcome::Written)
            }
            Err(e) => Err(self.fail(&format!("putting {key}"), e)),
        }
    }

    async fn create_bucket(&self) -> Result<()> {
        let place = self
            .location
            .as_deref()
            .map(|l| CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(l)).build());
        let made = self.client.create_bucket().bucket(&self.bucket).set_create_bucket_configuration(place).send().await;
        match made {
            Ok(_) => tracing::info!("made the bucket {}", self.place),
            // Another machine was quicker.
            Err(SdkError::ServiceError(s)) if s.raw().status().as_u16() == 409 => {}
            Err(e) => return Err(self.fail("creating the bucket", e)),
        }
        Ok(())
    }

    /// A put that must not replace another writer's bytes, on a server of which nothing is known: look, put on
    /// condition, and after a while see who it was. Only for the few keys that have several writers.
    async fn put_if_first(&self, key: &str, body: &Bytes) -> Result<PutOutcome> {
        if self.head(key).await?.is_some() {
            return Ok(PutOutcome::Existed);
        }
        match self.put_conditional(key, body).await? {
            PutOutcome::Existed => Ok(PutOutcome::Existed),
            PutOutcome::Written => {
                sleep(SETTLE).await;
                Ok(if self.get(key).await? == *body { PutOutcome::Written } else { PutOutcome::Existed })
            }
        }
    }

    /// `If-None-Match: *`, or an ordinary put where the server does not know it.
    async fn put_conditional(&self, key: &str, body: &Bytes) -> Result<PutOutcome> {
        match self.send(key, body.len(), || self.put_once(key, body, true)).await {
            Err(e) if e.kind() == Kind::Exists => Ok(PutOutcome::Existed),
            Err(e) if e.kind() == Kind::Unsupported => self.send(key, body.len(), || self.put_once(key, body, false)).await,
            r => r,
        }
    }

    async fn get_once(&self, key: &str) -> Result<Bytes> {
        let what = format!("getting {key}");
        // The body has the time it needs as long as it comes; the first byte and every next one have the attempt's time.
        let request = self.client.get_object().bucket(&self.bucket).key(key).send();
        let silent = |_| Error::new(Kind::Timeout, format!("{what}: {} did not answer within {:?}", self.place, self.options.try_timeout));
        let out = match timeout(self.options.try_timeout, request).await.map_err(silent)? {
            Ok(out) => out,
            Err(e) => return Err(self.fail(&what, e)),
        };
        self.seen.store(true, Ordering::Relaxed);
        let length = out.content_length().and_then(|l| u64::try_from(l).ok());
        let too_big = || Error::new(Kind::Corrupt, format!("{what}: {} claims more bytes than any object has", self.place));
        if length.is_some_and(|l| l > MAX_OBJECT) {
            return Err(too_big());
        }
        let mut stream = out.body;
        // The claimed length is not believed beyond what a chunk needs.
        let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(16 << 20) as usize);
        loop {
            let part = timeout(self.options.try_timeout, stream.next()).await;
            let stalled = |_| Error::new(Kind::Timeout, format!("{what}: {} stopped in the middle", self.place));
            match part.map_err(stalled)? {
                None => break,
                Some(Ok(part)) => body.extend_from_slice(&part),
                Some(Err(e)) => {
                    let doing = format!("{what} in {}: the answer broke off: {}", self.place, DisplayErrorContext(&e));
                    return Err(Error::new(Kind::Unavailable, doing));
                }
            }
            if body.len() as u64 > MAX_OBJECT {
                return Err(too_big());
            }
        }
        match length {
            Some(l) if l != body.len() as u64 => {
                let doing = format!("{what} in {}: {} of {l} bytes came", self.place, body.len());
                Err(Error::new(Kind::Unavailable, doing))
            }
            _ => Ok(body.freeze()),
        }
    }

    async fn list_once(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let request = match after {
            Some(mark) => match mark.strip_prefix(TOKEN) {
                Some(token) => request.continuation_token(token),
                None => request.start_after(mark),
            },
            None => request,
        };
        let out = match request.send().await {
            Ok(out) => out,
            Err(SdkError::ServiceError(s)) if s.err().code() == Some(NO_BUCKET) && !self.seen.load(Ordering::Relaxed) => {
                return Ok(Page::default());
            }
            Err(e) => return Err(self.fail(&format!("listing {prefix}"), e)),
        };
        self.seen.store(true, Ordering::Relaxed);
        let next = match (out.is_truncated(), out.next_continuation_token()) {
            (Some(true), Some(token)) => Some(format!("{TOKEN}{token}")),
            (Some(true), None) => {
                let doing = format!("listing {prefix} in {}: a page without a mark for the next", self.place);
                return Err(Error::new(Kind::Corrupt, doing));
            }
            _ => None,
        };
        let objects = out.contents.unwrap_or_default().into_iter().filter_map(|o| {
            let key = o.key.filter(|k| !k.ends_with('/'))?; // some servers list directories as empty objects
            let size = o.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
            Some(ObjectMeta { key, size, modified: o.last_modified.map_or(0, |t| t.secs()) })
        });
        Ok(Page { objects: objects.collect(), next })
    }
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &str) -> Result<Bytes> {
        keys::check(key)?;
        let extra = Duration::from_secs(u64::from(UPLOAD_KIB) * 1024 / SLOWEST_BYTES_PER_SECOND);
        self.call(&format!("getting {key}"), true, extra, || self.get_once(key)).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<PutOutcome> {
        keys::check_put(key)?;
        match mode {
            PutMode::Overwrite => self.send(key, body.len(), || self.put_once(key, &body, false)).await,
            PutMode::IfAbsent if keys::may_retry_put(key) => self.put_conditional(key, &body).await,
            PutMode::IfAbsent => self.put_if_first(key, &body).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page> {
        self.call(&format!("listing {prefix}"), true, Duration::ZERO, || self.list_once(prefix, after)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        keys::check(key)?;
        let attempt = || async {
            match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
                Ok(_) => Ok(()),
                Err(e) => match self.fail(&format!("deleting {key}"), e) {
                    e if e.kind() == Kind::NotFound => Ok(()),
                    e => Err(e),
                },
            }
        };
        self.call(&format!("deleting {key}"), true, Duration::ZERO, attempt).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        keys::check(key)?;
        let attempt = || async {
            match self.client.head_object().bucket(&self.bucket).key(key).send().await {
                Ok(out) => {
                    self.seen.store(true, Ordering::Relaxed);
                    let size = out.content_length().and_then(|l| u64::try_from(l).ok()).unwrap_or(0);
                    let modified = out.last_modified().map_or(0, |t| t.secs());
                    Ok(Some(ObjectMeta { key: key.to_owned(), size, modified }))
                }
                Err(e) => match self.fail(&format!("looking for {key}"), e) {
                    e if e.kind() == Kind::NotFound => Ok(None),
                    e => Err(e),
                },
            }
        };
        self.call(&format!("looking for {key}"), true, Duration::ZERO, attempt).await
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}

const NO_BUCKET: &str = "NoSuchBucket";
const CREDENTIALS: &str = "set TCFS_S3_ACCESS_KEY_ID and TCFS_S3_SECRET_ACCESS_KEY (or `[s3]` in the config file)";

/// What an answer of the server means to a caller.
fn kind_of(status: u16, code: &str) -> Kind {
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

#[cfg(test)]
mod tests;
