//! What readers ask of this process.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::registered;

/// What a reader asks. A closed set: the label `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A document, over HTTP.
    Document,
    /// A document of a copy of ours, for another process.
    HeldDocument,
    /// A search in a copy of ours, for another process.
    HeldSearch,
    /// A command that reads rows, over the Redis protocol.
    Row,
    /// A search, over HTTP.
    Search,
    /// The status.
    Status,
}

impl Op {
    const ALL: [Self; 6] = [
        Self::Document,
        Self::HeldDocument,
        Self::HeldSearch,
        Self::Row,
        Self::Search,
        Self::Status,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::HeldDocument => "held_document",
            Self::HeldSearch => "held_search",
            Self::Row => "row",
            Self::Search => "search",
            Self::Status => "status",
        }
    }
}

/// What became of a request. A closed set: the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered; "there is no such row" is an answer.
    Ok,
    /// The request was at fault, or asked for what there is not.
    Refused,
    /// It may be answered later, or elsewhere.
    Unavailable,
    /// Something behind the gateway is broken.
    Broken,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Refused, Self::Unavailable, Self::Broken];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Broken => "broken",
        }
    }
}

/// A port of the server. A closed set: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// HTTP.
    Http,
    /// The Redis protocol.
    Redis,
}

impl Port {
    const ALL: [Self; 2] = [Self::Http, Self::Redis];

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Redis => "redis",
        }
    }
}

/// Bounds in seconds. None is a whole number: Prometheus 3 writes those anew, and rules that match the
/// label's text would break.
const SECONDS: [f64; 13] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 10.5,
];

/// What readers ask of this process.
pub struct GatewayMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    connections: IntGaugeVec,
    refused: IntCounterVec,
}

impl GatewayMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = Opts::new(
            "gateway_requests_total",
            "Requests of readers, by what became of them.",
        );
        let seconds = HistogramOpts::new(
            "gateway_request_duration_seconds",
            "Time from a request's arrival to its answer; commands of one pipeline share theirs.",
        );
        let connections = Opts::new("gateway_connections", "Connections that are open now.");
        let refused = Opts::new(
            "gateway_refused_total",
            "Requests and commands that were refused for want of the token.",
        );
        let metrics = Self {
            requests: registered(registry, IntCounterVec::new(requests, &["op", "outcome"]))?,
            seconds: registered(
                registry,
                HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["op"]),
            )?,
            connections: registered(registry, IntGaugeVec::new(connections, &["kind"]))?,
            refused: registered(registry, IntCounterVec::new(refused, &["kind"]))?,
        };
        // A series that appears with its first increase hides that increase from `rate`.
        for op in Op::ALL {
            for outcome in Outcome::ALL {
                metrics.counter(op, outcome).inc_by(0);
            }
        }
        for port in Port::ALL {
            let labels = [port.as_str()];
            metrics.connections.with_label_values(&labels).set(0);
            metrics.refused.with_label_values(&labels).inc_by(0);
        }
        Ok(metrics)
    }

    fn counter(&self, op: Op, outcome: Outcome) -> prometheus::IntCounter {
        let labels = [op.as_str(), outcome.as_str()];
        self.requests.with_label_values(&labels)
    }

    /// Counts an answered request.
    pub fn answered(&self, op: Op, outcome: Outcome, elapsed: Duration) {
        self.counter(op, outcome).inc();
        let seconds = self.seconds.with_label_values(&[op.as_str()]);
        seconds.observe(elapsed.as_secs_f64());
    }

    /// Counts a request of a client that has not shown the token.
    pub fn refused(&self, port: Port) {
        self.refused.with_label_values(&[port.as_str()]).inc();
    }

    /// Counts a connection as open until the guard's drop.
    #[must_use]
    pub fn connected(&self, port: Port) -> ConnectionGuard {
        let open = self.connections.with_label_values(&[port.as_str()]);
        open.inc();
        ConnectionGuard(open)
    }
}

/// A connection that is open.
pub struct ConnectionGuard(IntGauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
