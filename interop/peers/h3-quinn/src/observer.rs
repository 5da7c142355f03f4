//! What h3 tells in its log only: that SETTINGS came, and which stream a GOAWAY names.

use std::fmt::{Debug, Write};
use std::sync::Arc;

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

const SETTINGS: &str = "Got settings";
const GOAWAY: &str = "Server initiated graceful shutdown, last: StreamId(";

/// What is known of a connection.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// SETTINGS came.
    pub has_settings: bool,
    /// Whether the relay announced extended CONNECT and H3_DATAGRAM; `None` until SETTINGS came.
    pub settings: Option<(bool, bool)>,
    /// The stream that GOAWAY names.
    pub goaway: Option<u64>,
    /// The connection is over, with a code where there is one.
    pub closed: Option<Option<u64>>,
}

/// Listens while one connection is polled.
pub struct Observer(pub Arc<watch::Sender<Facts>>);

impl Subscriber for Observer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == "h3::client::connection"
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        if message.0 == SETTINGS {
            self.0.send_modify(|facts| facts.has_settings = true);
        } else if let Some(rest) = message.0.strip_prefix(GOAWAY) {
            let stream = rest.trim_end_matches(')').parse().ok();
            self.0.send_modify(|facts| facts.goaway = stream);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}"); // a String takes everything
        }
    }
}
