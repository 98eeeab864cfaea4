//! The process's metrics: one registry that is passed in, one struct for each area.
//!
//! What a counter counts is told as it happens; what a gauge shows is computed at the scrape, from what
//! the process knows then ([`Scrape`]), so that nothing stale stays behind. `docs/metrics.md` lists all
//! of them, and a test compares it with the registry.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The metrics of a process.
pub struct Metrics {
    registry: Registry,
    /// What readers ask.
    pub gateway: GatewayMetrics,
}

impl Metrics {
    /// Makes the metrics of a process.
    ///
    /// # Errors
    /// Where two have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("materializer".into()), None)?;
        let gateway = GatewayMetrics::register(&registry)?;
        Ok(Self { registry, gateway })
    }

    /// Returns what a scrape reads.
    ///
    /// # Errors
    /// Where a metric cannot be written.
    pub fn render(&self) -> anyhow::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

/// What a reader asks. A closed set: the label `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A document over HTTP.
    Document,
    /// A document of a copy that another process asks for.
    HeldDocument,
    /// A search of a copy that another process asks for.
    HeldSearch,
    /// A command that reads rows, over the Redis protocol.
    Row,
    /// A search over HTTP.
    Search,
    /// The status.
    Status,
}

impl Op {
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

/// A port of the server. A closed set: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// HTTP.
    Http,
    /// The Redis protocol.
    Redis,
}

impl Port {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Redis => "redis",
        }
    }
}

/// What readers ask of this process.
pub struct GatewayMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    connections: IntGaugeVec,
}

impl GatewayMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("gateway_requests_total", "Requests answered."),
            &["op", "outcome"],
        )?;
        let options = HistogramOpts::new(
            "gateway_request_duration_seconds",
            "Time from a request's arrival to its answer.",
        );
        let buckets = vec![
            0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 10.5,
        ];
        let seconds = HistogramVec::new(options.buckets(buckets), &["op"])?;
        let connections = IntGaugeVec::new(
            Opts::new("gateway_connections", "Connections that are open."),
            &["kind"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        Ok(Self {
            requests,
            seconds,
            connections,
        })
    }

    /// Counts an answered request.
    pub fn answered(&self, op: Op, outcome: &'static str, elapsed: Duration) {
        self.requests
            .with_label_values(&[op.as_str(), outcome])
            .inc();
        let seconds = self.seconds.with_label_values(&[op.as_str()]);
        seconds.observe(elapsed.as_secs_f64());
    }

    /// Counts a connection until the guard's drop.
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
