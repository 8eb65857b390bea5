//! The event bus as the fleet layer sees it: something that may tell others sooner.
//!
//! Must: nothing depends on it. What is said may be lost, doubled, late and out of order; the logs in the store are the
//! truth. Must: no call waits longer than a moment.
//! Not here: NATS (`nats`), what is done with what is heard (`hear`), what is published when (`publish`).

use crate::error::Result;
use crate::model::event::Event;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What comes from the bus.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The connection stands, for the first time or again: what was said meanwhile may have been missed.
    Connected,
    /// Somebody said something.
    Event(Box<Event>),
}

/// What is to be said: the event, and an id by which the bus knows a repetition.
#[derive(Clone, Debug, PartialEq)]
pub struct Saying {
    /// The same for every attempt to say this.
    pub id: String,
    /// What.
    pub event: Event,
}

/// How the bus is, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusStatus {
    /// It answers.
    pub connected: bool,
    /// Where it is, without secrets.
    pub url: String,
    /// Why it does not answer.
    pub last_error: Option<String>,
    /// Why what is said here does not reach the hub now, where there is one.
    pub hub_error: Option<String>,
}

/// A bus. Shared by `Arc`; every call may come from any task.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Says something to all others; returns when the bus has it, or soon in any case. Cancel-safe.
    ///
    /// Errors: `Unavailable` or `Timeout`; nobody may have heard.
    async fn say(&self, what: Vec<Saying>) -> Result<()>;

    /// Listens for as long as it is polled, connecting as often as it takes. Ends when `out` is closed. Cancel-safe.
    async fn listen(self: Arc<Self>, out: mpsc::Sender<Heard>);

    /// How it is.
    fn status(&self) -> BusStatus;
}
