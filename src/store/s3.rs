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

mod error;
mod options;

use super::{MAX_OBJECT, ObjectMeta, Page, PutMode, PutOutcome, Store, keys};
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_smithy_http_client::tls;
use bytes::{Bytes, BytesMut};
use error::NO_BUCKET;
use options::CREDENTIALS;
pub use options::S3Options;
pub(crate) use options::check_endpoint;
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

#[cfg(test)]
mod tests;
