//! What Prometheus is told.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The type of the text that [`Metrics::text`] gives.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

/// Counters and histograms of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    latency: Family<Route, Histogram>,
    batches: Histogram,
    reloads: Family<Reload, Counter>,
    added: Counter,
    /// Set when asked for.
    waiting: Gauge,
    items: Gauge,
    generation: Gauge,
    connections: Gauge,
    in_flight: Gauge,
    resident: Gauge,
}

/// Counts a request for as long as it is kept.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // From half a millisecond to 16 s.
        let latency: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(latency),
            batches: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            reloads: Family::default(),
            added: Counter::default(),
            waiting: Gauge::default(),
            items: Gauge::default(),
            generation: Gauge::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            resident: Gauge::default(),
        };
        let mut all = Registry::default();
        if resident().is_some() {
            // The name that Prometheus gives it in every process.
            let (process, help) = (all.sub_registry_with_prefix("process"), "Resident memory size");
            process.register_with_unit("resident_memory", help, Unit::Bytes, metrics.resident.clone());
        }
        let registry = all.sub_registry_with_prefix("genrec");
        registry.register("requests", "Requests answered, by route and status", metrics.requests.clone());
        let help = "Time from a request's headers to those of its answer, by route";
        registry.register_with_unit("request_duration", help, Unit::Seconds, metrics.latency.clone());
        registry.register("batch_histories", "Histories decoded together", metrics.batches.clone());
        registry.register("queue_histories", "Histories that wait to be decoded", metrics.waiting.clone());
        registry.register("reloads", "Times that the run was opened anew, by result", metrics.reloads.clone());
        registry.register("items", "Items that can be recommended", metrics.items.clone());
        registry.register("items_added", "Items added since the start", metrics.added.clone());
        registry.register("generation", "Times that the run served was replaced", metrics.generation.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("requests_in_flight", "Requests that are not answered yet", metrics.in_flight.clone());
        Self { registry: all, ..metrics }
    }

    pub(crate) fn begun(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn answered(&self, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        self.latency.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { route, status: u32::from(status) }).inc();
    }

    pub(crate) fn decoded(&self, histories: usize) {
        self.batches.observe(histories as f64);
    }

    pub(crate) fn reloaded(&self, well: bool) {
        self.reloads.get_or_create(&Reload { result: if well { "ok" } else { "failed" } }).inc();
    }

    pub(crate) fn added(&self) {
        self.added.inc();
    }

    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    pub(crate) fn disconnected(&self) {
        self.connections.dec();
    }

    /// Everything, in the text form of OpenMetrics.
    pub(crate) fn text(&self, waiting: usize, items: usize, generation: u64) -> Result<String, std::fmt::Error> {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.items.set(i64::try_from(items).unwrap_or(i64::MAX));
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.resident.set(resident().unwrap_or(0));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Memory of this process that is not swapped out, in bytes; `None` where the system does not say so as Linux does.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim().trim_end_matches("kB").trim().parse::<i64>().ok()?.checked_mul(1024)
}
