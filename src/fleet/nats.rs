//! The event bus over NATS JetStream.
//!
//! One stream holds what was said in the last days (`STATE_UPDATES`, subjects `STATE.>`); each device reads it with a
//! durable consumer of its own, so what was said while it was away comes when it is back.
//!
//! On a leaf node the stream is the leaf's own, so that the daemon goes on while the hub is away. Each of the two streams
//! has the other one as a source; message ids keep what comes back from being stored again.
//!
//! Must: connects again for ever, whatever the server does; a stream or consumer that was deleted is made again; what an
//! administrator added to the stream (sources, mirrors, replicas) stays. Must: no secret in a log line or status.
//! Not here: what is said and heard (`hear`).

mod address;

use self::address::{addresses, login, servers};
use super::backoff::backoff;
use super::bus::{Bus, BusStatus, Heard, Saying};
use super::identity::Me;
use crate::error::{Error, Kind, Result};
use crate::model::event::Event;
use async_nats::jetstream::consumer::pull::{Config as ConsumerConfig, MessagesErrorKind};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config as StreamConfig, External, RetentionPolicy, Source, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, connection::State};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// The stream.
pub const STREAM: &str = "STATE_UPDATES";
/// Its subjects.
pub const SUBJECTS: &str = "STATE.>";
/// How long the stream keeps what was said; a consumer that nobody reads for so long goes, too.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Window in which a repetition is known as one.
const DUPLICATES: Duration = Duration::from_secs(120);
/// A request to the server.
const REQUEST: Duration = Duration::from_secs(5);
/// Waits between attempts: first, longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// A silent server is noticed after two of these.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages asked for at a time, and out without an acknowledgement at most.
const BATCH: usize = 512;
const UNACKNOWLEDGED: i64 = 10_000;
/// Acknowledgements of the server waited for at a time.
const INFLIGHT: usize = 256;
/// How often it is looked whether hub and leaf still have each other as a source: when they had, when not.
const JOINED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// Room for subject and headers beside the body of a message.
const HEADERS: usize = 1024;

/// How to reach the server and who this device is for it.
#[derive(Clone, Default)]
pub struct NatsOptions {
    /// One or more `nats://` or `tls://` URLs, separated by commas; may hold user and password.
    pub url: String,
    /// The same for people, without them.
    pub shown_url: String,
    /// Token.
    pub token: Option<String>,
    /// User and password.
    pub user: Option<(String, String)>,
    /// Credentials file (JWT and seed).
    pub creds_file: Option<PathBuf>,
    /// Seed of an nkey.
    pub nkey: Option<String>,
    /// Certificate authority, PEM; makes TLS a must.
    pub ca_file: Option<PathBuf>,
    /// JetStream domain of the hub, where the server is a leaf node of one.
    pub hub: Option<String>,
}

impl std::fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NatsOptions({})", self.shown_url)
    }
}

/// The bus.
pub struct Nats {
    options: NatsOptions,
    me: Arc<Me>,
    now: Arc<Mutex<Now>>,
    /// The stream or the consumer is not as it should be: begin anew.
    broken: Notify,
}

#[derive(Default)]
struct Now {
    up: Option<(Client, Context)>,
    last_error: Option<String>,
    hub_error: Option<String>,
}

fn unavailable(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Error {
    move |e| Error::new(Kind::Unavailable, format!("{what}: {e}"))
}

impl Nats {
    /// A bus that connects when it is listened to.
    ///
    /// Errors: `Usage` for a URL that is none.
    pub fn new(options: NatsOptions, me: Arc<Me>) -> Result<Arc<Nats>> {
        servers(&options)?;
        Ok(Arc::new(Nats { options, me, now: Arc::default(), broken: Notify::new() }))
    }

    async fn connect(&self, came: mpsc::Sender<()>) -> Result<Client> {
        let o = &self.options;
        let now = self.now.clone();
        let mut c = ConnectOptions::new()
            .name(format!("tcfs {}", self.me.get().id))
            .connection_timeout(REQUEST)
            .ping_interval(HEARTBEAT)
            .request_timeout(Some(REQUEST))
            .reconnect_delay_callback(|n| backoff(AGAIN, n as u32))
            .event_callback(move |e| {
                tracing::debug!("event bus: {e}");
                use async_nats::Event as E;
                match &e {
                    E::Connected => drop(came.try_send(())),
                    // Shown for as long as it is not connected.
                    E::Disconnected => now.lock().last_error = Some("the connection to the event bus was lost".to_owned()),
                    E::ClientError(e) => {
                        let why = e.to_string().replace("nats: ", "").replace("IO error", "the server does not answer");
                        now.lock().last_error = Some(format!("connecting to the event bus: {why}"));
                    }
                    E::ServerError(e) => now.lock().last_error = Some(format!("the event bus says: {e}")),
                    _ => {}
                }
                std::future::ready(())
            });
        if let Some(t) = &o.token {
            c = c.token(t.clone());
        }
        let in_url = addresses(&o.url).find_map(|u| login(u).1);
        match (&o.user, in_url) {
            (Some((user, password)), _) => c = c.user_and_password(user.clone(), password.clone()),
            (None, Some((user, Some(password)))) => c = c.user_and_password(user, password),
            (None, Some((token, None))) => c = c.token(token),
            (None, None) => {}
        }
        if let Some(seed) = &o.nkey {
            c = c.nkey(seed.clone());
        }
        if let Some(f) = &o.creds_file {
            let doing = |e| Error::io(format!("reading the NATS credentials {}", f.display()), e);
            c = c.credentials_file(f).await.map_err(doing)?;
        }
        if let Some(f) = &o.ca_file {
            c = c.add_root_certificates(f.clone()).require_tls(true);
        }
        c.connect(servers(o)?).await.map_err(|e| unavailable("connecting to the event bus")(&e))
    }

    /// Makes the stream, or brings it up to its configuration; with `from`, with the stream of that domain as a source.
    async fn stream(&self, js: &Context, from: Option<&str>) -> Result<Stream> {
        let failed = unavailable("setting up the stream of the event bus");
        let mut wanted = StreamConfig {
            name: STREAM.to_owned(),
            subjects: vec![SUBJECTS.to_owned()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            max_age: KEEP,
            duplicate_window: DUPLICATES,
            num_replicas: 1,
            max_bytes: -1,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            sources: from.map(|domain| vec![source(domain)]),
            ..StreamConfig::default()
        };
        let stream = js.get_or_create_stream(wanted.clone()).await.map_err(|e| failed(&e))?;
        let is = stream.cached_info().config.clone();
        // A mirror has no subjects of its own: what is said goes to where it comes from.
        if is.mirror.is_some() {
            return Ok(stream);
        }
        let right = is.subjects == wanted.subjects && is.retention == wanted.retention && is.max_age == wanted.max_age;
        let mut sources = is.sources.clone().unwrap_or_default();
        let joined = from.is_none_or(|domain| sources.iter().any(|s| is_from(s, domain)));
        if !joined {
            sources.extend(from.map(source));
        }
        if !right || !joined || is.duplicate_window != wanted.duplicate_window {
            wanted = StreamConfig {
                subjects: wanted.subjects,
                retention: wanted.retention,
                max_age: wanted.max_age,
                duplicate_window: wanted.duplicate_window,
                sources: Some(sources).filter(|s| !s.is_empty()),
                ..is
            };
            match js.update_stream(wanted).await {
                Ok(_) => tracing::info!("the stream of the event bus is brought up to its configuration"),
                // Perhaps this user may not, or an administrator wants it so: it is good for something all the same.
                Err(e) if joined => tracing::warn!("the stream of the event bus is not as it should be, and cannot be changed: {e}"),
                Err(e) => return Err(failed(&e)),
            }
        }
        Ok(stream)
    }

    /// Sees to it, for ever, that the streams of this leaf node and of its hub have each other as a source.
    async fn join(&self, client: &Client, hub: Option<&str>) -> std::convert::Infallible {
        let Some(hub) = hub else { return std::future::pending().await };
        loop {
            let error = self.joined(client, hub).await.err().map(|e| format!("the hub {hub:?} of the event bus: {e}"));
            let before = std::mem::replace(&mut self.now.lock().hub_error, error.clone());
            match &error {
                None if before.is_some() => tracing::info!("the hub {hub:?} of the event bus answers"),
                Some(e) if before.is_none() => tracing::warn!("{e}"),
                _ => {}
            }
            tokio::time::sleep(if error.is_none() { JOINED.0 } else { JOINED.1 }).await;
        }
    }

    async fn joined(&self, client: &Client, hub: &str) -> Result<()> {
        let here = context(client, None);
        let failed = unavailable("looking for the domain of the leaf node");
        let domain = here.query_account().await.map_err(|e| failed(&e))?.domain;
        match domain.as_deref() {
            None => Err(Error::new(Kind::Unavailable, "the server on this side has no JetStream domain")),
            Some(d) if d == hub => {
                Err(Error::new(Kind::Unavailable, "the server on this side is the hub itself: nats.hub is for leaf nodes"))
            }
            Some(domain) => {
                self.stream(&here, Some(hub)).await?;
                self.stream(&context(client, Some(hub)), Some(domain)).await.map(|_| ())
            }
        }
    }

    /// One connection, until something about it has to be made anew.
    async fn session(&self, out: &mpsc::Sender<Heard>) -> Result<()> {
        let (came, mut comes) = mpsc::channel(1);
        let client = self.connect(came).await?;
        let js = context(&client, None);
        let stream = self.stream(&js, None).await?;
        let id = self.me.get().id.clone();
        let name = format!("state-{id}");
        let config = ConsumerConfig {
            durable_name: Some(name.clone()),
            // What was said before is in the logs.
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(30),
            max_ack_pending: UNACKNOWLEDGED,
            filter_subject: SUBJECTS.to_owned(),
            inactive_threshold: KEEP,
            ..ConsumerConfig::default()
        };
        let failed = unavailable("setting up the consumer of the event bus");
        // A consumer that is there keeps where it was; one that is not as it should be, and cannot be made so, goes.
        let consumer = match stream.create_consumer(config.clone()).await {
            Ok(c) => c,
            Err(first) => {
                tracing::debug!("the consumer of the event bus is made anew: {first}");
                let _ = stream.delete_consumer(&name).await;
                stream.create_consumer(config).await.map_err(|e| failed(&e))?
            }
        };
        let messages = consumer.stream().max_messages_per_batch(BATCH).heartbeat(HEARTBEAT).expires(HEARTBEAT * 6).messages();
        let mut messages = messages.await.map_err(|e| failed(&e))?;
        let joining = self.join(&client, self.options.hub.as_deref());
        tokio::pin!(joining);
        // What broke before is mended.
        let _ = self.broken.notified().now_or_never();
        self.up(client.clone(), js);
        let _ = comes.try_recv();
        if out.send(Heard::Connected).await.is_err() {
            return Ok(());
        }
        loop {
            let message = tokio::select! {
                m = messages.next() => m,
                Some(()) = comes.recv() => {
                    tracing::info!(url = self.options.shown_url, "connected to the event bus again");
                    self.now.lock().last_error = None;
                    // A server that lost its store answers, and has no consumer of ours.
                    self.still_there(&client, &id).await?;
                    if out.send(Heard::Connected).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                never = &mut joining => match never {},
                () = self.broken.notified() => return Err(Error::new(Kind::Unavailable, "the stream of the event bus does not answer")),
            };
            let message = match message {
                Some(Ok(m)) => m,
                // The server was silent for a while; the stream of messages goes on by itself.
                Some(Err(e)) if matches!(e.kind(), MessagesErrorKind::MissingHeartbeat) => {
                    if client.connection_state() == State::Connected {
                        // Perhaps it is the consumer that is gone.
                        self.still_there(&client, &id).await?;
                    }
                    continue;
                }
                Some(Err(e)) => return Err(unavailable("listening to the event bus")(&e)),
                None => return Err(Error::new(Kind::Unavailable, "the event bus ended the stream of messages")),
            };
            match Event::decode(&message.payload) {
                // Who may speak for one device only is heard for that one only.
                Ok(e) if message.subject.strip_prefix("STATE.").is_some_and(|s| s.split('.').next() != Some(e.device_id())) => {
                    tracing::debug!(subject = %message.subject, "an event of another device than its subject names");
                }
                Ok(e) => {
                    if out.send(Heard::Event(Box::new(e))).await.is_err() {
                        return Ok(());
                    }
                }
                Err(why) => tracing::debug!(subject = %message.subject, "a message on the event bus is no event: {why}"),
            }
            // It is handed on: should it be lost from here on, the next look at the log finds it.
            if let Err(e) = message.ack().await {
                tracing::debug!("acknowledging an event: {e}");
            }
            if self.me.get().id != id {
                return Err(Error::new(Kind::Unavailable, "this device has a new id"));
            }
        }
    }

    async fn still_there(&self, client: &Client, id: &str) -> Result<()> {
        let failed = unavailable("looking at the consumer of the event bus");
        let stream = context(client, None).get_stream(STREAM).await.map_err(|e| failed(&e))?;
        stream.consumer_info(format!("state-{id}")).await.map(|_| ()).map_err(|e| failed(&e))
    }

    fn up(&self, client: Client, js: Context) {
        let mut now = self.now.lock();
        if now.last_error.take().is_some() {
            tracing::info!(url = self.options.shown_url, "the event bus answers again");
        } else {
            tracing::info!(url = self.options.shown_url, "connected to the event bus");
        }
        now.up = Some((client, js));
    }

    fn down(&self, why: Option<Error>) {
        let mut now = self.now.lock();
        now.up = None;
        if let Some(e) = why {
            let text = e.to_string();
            if now.last_error.as_ref() != Some(&text) {
                tracing::warn!(url = self.options.shown_url, "{text}");
            }
            now.last_error = Some(text);
        }
    }
}

/// JetStream of the server, or of another domain that it leads to.
fn context(client: &Client, domain: Option<&str>) -> Context {
    let prefix = domain.map_or("$JS.API".to_owned(), api_of);
    jetstream::context::ContextBuilder::new().api_prefix(prefix).timeout(REQUEST).ack_timeout(REQUEST).build(client.clone())
}

fn api_of(domain: &str) -> String {
    format!("$JS.{domain}.API")
}

/// The stream of another domain as a source.
fn source(domain: &str) -> Source {
    let external = External { api_prefix: api_of(domain), delivery_prefix: None };
    Source { name: STREAM.to_owned(), external: Some(external), ..Source::default() }
}

fn is_from(s: &Source, domain: &str) -> bool {
    s.name == STREAM && (s.domain.as_deref() == Some(domain) || s.external.as_ref().is_some_and(|e| e.api_prefix == api_of(domain)))
}

#[async_trait]
impl Bus for Nats {
    async fn say(&self, what: Vec<Saying>) -> Result<()> {
        let up = self.now.lock().up.clone();
        let up = up.filter(|(c, _)| c.connection_state() == State::Connected);
        let (client, js) = up.ok_or_else(|| Error::new(Kind::Unavailable, "the event bus is not connected"))?;
        let failed = |e: &dyn std::fmt::Display| {
            self.broken.notify_one();
            unavailable("saying something on the event bus")(e)
        };
        let mut acks = FuturesUnordered::new();
        for s in what {
            let subject = format!("STATE.{}.{}", s.event.device_id(), s.event.name());
            let mut body = s.event.encode();
            if body.len() + HEADERS > client.max_payload() {
                body = s.event.without_record().encode();
            }
            let message = PublishMessage::build().payload(body.into()).message_id(&s.id);
            let ack = js.send_publish(subject, message).await.map_err(|e| failed(&e))?;
            acks.push(ack.into_future());
            if acks.len() >= INFLIGHT
                && let Some(Err(e)) = acks.next().await
            {
                return Err(failed(&e));
            }
        }
        while let Some(ack) = acks.next().await {
            ack.map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    async fn listen(self: Arc<Self>, out: mpsc::Sender<Heard>) {
        let mut failures = 0;
        while !out.is_closed() {
            let begun = tokio::time::Instant::now();
            let ended = self.session(&out).await;
            self.down(ended.err());
            failures = if begun.elapsed() > AGAIN.1 { 0 } else { failures + 1 };
            tokio::select! {
                () = tokio::time::sleep(backoff(AGAIN, failures)) => {}
                () = out.closed() => return,
            }
        }
    }

    fn status(&self) -> BusStatus {
        let now = self.now.lock();
        let connected = now.up.as_ref().is_some_and(|(c, _)| c.connection_state() == State::Connected);
        BusStatus {
            connected,
            url: self.options.shown_url.clone(),
            last_error: now.last_error.clone().filter(|_| !connected),
            hub_error: now.hub_error.clone().filter(|_| connected),
        }
    }
}
