//! Counters of the HTTP face, registered with the node's own.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tl_types::ErrorCode;

/// Upper bounds of the request time, seconds: from a cached read to a long poll.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrontLabel {
    front: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// How a tail is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Raw WebSocket.
    WebSocket,
    /// Server-sent events.
    EventStream,
    /// A long poll that waits.
    LongPoll,
}

impl Front {
    fn word(self) -> &'static str {
        match self {
            Front::WebSocket => "websocket",
            Front::EventStream => "sse",
            Front::LongPoll => "long_poll",
        }
    }
}

/// The counters. Labels are routes of the table, never paths: their number is bounded.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    under_way: Gauge,
    connections: Gauge,
    tails: Family<FrontLabel, Gauge>,
    slow_readers: Counter,
    refusals: Family<CodeLabel, Counter>,
    /// Appends answered on the driver's own thread.
    pub hot_appends: Counter,
}

impl Metrics {
    /// Fresh counters.
    pub fn new() -> Metrics {
        Metrics {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            under_way: Gauge::default(),
            connections: Gauge::default(),
            tails: Family::default(),
            slow_readers: Counter::default(),
            refusals: Family::default(),
            hot_appends: Counter::default(),
        }
    }

    /// Adds the counters to the node's.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Requests answered, by method, route and status",
            self.requests.clone(),
        );
        registry.register(
            "http_request_seconds",
            "Time from the request's headers to its reply; for tails, to the first bytes",
            self.seconds.clone(),
        );
        registry.register(
            "http_requests_under_way",
            "Requests read and not yet answered, long polls among them",
            self.under_way.clone(),
        );
        registry.register("http_connections_open", "Open connections", self.connections.clone());
        registry.register("http_tails_open", "Open tails, by front", self.tails.clone());
        registry.register(
            "http_refusals",
            "Requests answered with an error, by its code",
            self.refusals.clone(),
        );
        registry.register(
            "http_slow_readers",
            "Connections cut off because the reader took nothing for too long",
            self.slow_readers.clone(),
        );
        registry.register(
            "http_hot_appends",
            "Appends answered on the driver's own thread",
            self.hot_appends.clone(),
        );
    }

    /// Counts a request that was answered with an error.
    pub fn refused(&self, code: ErrorCode) {
        self.refusals.get_or_create(&CodeLabel { code: code.word() }).inc();
    }

    /// Counts one answered request.
    pub fn answered(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let labels = RequestLabels { method, route, status: status.into() };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    }

    /// Counts a request for as long as the result lives.
    pub fn request(&self) -> Open {
        Open::of(self.under_way.clone())
    }

    /// Counts a connection for as long as the result lives.
    pub fn connection(&self) -> Open {
        Open::of(self.connections.clone())
    }

    /// Counts a tail for as long as the result lives.
    pub fn tail(&self, front: Front) -> Open {
        Open::of(self.tails.get_or_create_owned(&FrontLabel { front: front.word() }))
    }

    /// Counts a reader that was cut off.
    pub fn slow_reader(&self) {
        self.slow_readers.inc();
    }
}

/// One more open thing, until dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    fn of(gauge: Gauge) -> Open {
        gauge.inc();
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
