//! How quinn-proto is set up: windows so wide that they are not what is measured.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::congestion::{BbrConfig, Controller, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::{TransportConfig, VarInt};
use serde::Deserialize;

const PACKET_BYTES: u16 = 1400;
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAM_WINDOW: u32 = 16 << 20;
/// Stream bytes that are kept until the peer has acknowledged them; the less, the sooner an upload has ended.
const SEND_WINDOW: u64 = 16 << 20;
const DATAGRAM_BYTES: usize = 16 << 20;
const IDLE: Duration = Duration::from_secs(60);
const FIRST_WINDOW: u64 = 1 << 20;

/// Who decides how much may be under way.
#[derive(Clone, Copy, Default, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// Nobody: the load itself bounds it, or the peer's flow control.
    Open,
    /// CUBIC (RFC 9438), beginning with a window of a megabyte.
    #[default]
    Cubic,
    /// NewReno (RFC 9002), beginning with a window of a megabyte.
    Newreno,
    /// quinn's BBR, which loss that is not congestion does not slow down.
    Bbr,
}

/// Makes the transport's configuration.
pub fn configure(congestion: Congestion) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .initial_mtu(PACKET_BYTES)
        .min_mtu(PACKET_BYTES)
        .mtu_discovery_config(None)
        .receive_window(CONNECTION_WINDOW.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IDLE.try_into().expect("a minute is a valid timeout")));
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Congestion::Open => Arc::new(Open),
        Congestion::Cubic => Arc::new(widened(CubicConfig::default(), CubicConfig::initial_window)),
        Congestion::Newreno => Arc::new(widened(NewRenoConfig::default(), NewRenoConfig::initial_window)),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
    };
    config.congestion_controller_factory(factory);
    config
}

fn widened<T>(mut config: T, set: fn(&mut T, u64) -> &mut T) -> T {
    set(&mut config, FIRST_WINDOW);
    config
}

/// No congestion control. The window is above 2^32 because quinn-proto paces what is below.
#[derive(Clone)]
struct Open;

impl ControllerFactory for Open {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(Open)
    }
}

impl Controller for Open {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _is_persistent: bool, _lost: u64) {}

    fn on_mtu_update(&mut self, _mtu: u16) {}

    fn window(&self) -> u64 {
        1 << 40
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Open)
    }

    fn initial_window(&self) -> u64 {
        self.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
