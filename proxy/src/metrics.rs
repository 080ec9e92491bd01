//! Every metric name, label and unit in one file.
//!
//! Labels are bounded: zones, resources and codes come from bundles and from closed enums, never from a
//! request. Names follow the Prometheus conventions; durations are in seconds.

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Buckets for a request as a whole, in seconds.
const REQUEST_BUCKETS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Buckets for our own stages, in seconds.
const STAGE_BUCKETS: [f64; 10] =
    [0.000_001, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.01, 0.1];

/// For metrics that are shown only once they have a value.
pub const NO_LABELS: [&str; 0] = [];

/// The process's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Gateway requests by `zone`, `resource`, `code` (`ok`, or the refusal's label).
    pub requests: IntCounterVec,
    /// Guards that fired by `zone`, `resource`, `guard`, `outcome` (`denied`, `unanswered`, or one of them in shadow).
    pub guards: IntCounterVec,
    /// Whole gateway requests in seconds by `zone`, `resource`.
    pub request_seconds: HistogramVec,
    /// Time from reading the head to the decision, in seconds, by `source` of the verified mandate.
    pub gate_seconds: HistogramVec,
    /// Upstream answers by `zone`, `resource`, `class` (`2xx` and so on).
    pub upstream_responses: IntCounterVec,
    /// Connections to upstreams that could not be made, by `zone`, `resource`; others may have been tried after.
    pub connect_failures: IntCounterVec,
    /// 1 while a place of an upstream passes its health check, by `zone`, `resource`, `address`.
    pub upstream_healthy: IntGaugeVec,
    /// Places where an upstream repeated an injected secret and it was overwritten, by `zone`, `resource`.
    pub scrubbed: IntCounterVec,
    /// Calls refused by a budget or rate, by `zone`, `budget`.
    pub budget_refusals: IntCounterVec,
    /// Open accounts of budgets.
    pub budget_accounts: IntGauge,
    /// Token endpoint answers by `zone`, `code`.
    pub exchanges: IntCounterVec,
    /// Coordinator answers by `zone`, `code`.
    pub coordinator: IntCounterVec,
    /// Requests in flight at the gateway.
    pub in_flight: IntGauge,
    /// Open connections of callers at the gateway.
    pub connections: IntGauge,
    /// Connections that were closed at once, because `max_connections` were open.
    pub connections_refused: IntCounter,
    /// Streams ended by a revocation, a deadline or a policy change, by `why`.
    pub cuts: IntCounterVec,
    /// Requests whose handler panicked.
    pub panics: IntCounter,
    /// Reloads by `what` (`bundle`, `candidate`, `secrets`), `zone` and `result` (`accepted`, `rejected`).
    pub reloads: IntCounterVec,
    /// Reloads that changed something, in seconds, by `until` (`in_force`; `over`: changes told, files kept).
    pub reload_seconds: HistogramVec,
    /// Generation of the running snapshot.
    pub generation: IntGauge,
    /// 1 while files on disk differ from the running snapshot, by `what`.
    pub files_newer: IntGaugeVec,
    /// The running bundle by `zone` and `digest`; the value is 1.
    pub bundle_info: IntGaugeVec,
    /// 1 while an operator's version of the bundle is in force instead of the files', by `zone`.
    pub bundle_pinned: IntGaugeVec,
    /// Decisions that a candidate would make differently, by `zone`, `from`, `to` (`allow`, `approval`, `deny`) and
    /// `rule`, the reason of the refusal.
    pub decision_diff: IntCounterVec,
    /// Decisions that a candidate was asked about, by `zone`.
    pub rehearsal_compared: IntCounterVec,
    /// Decisions that cannot be put to a candidate, by `zone` and `why`.
    pub rehearsal_not_comparable: IntCounterVec,
    /// Decisions that a candidate was not asked about because too many waited, by `zone`.
    pub rehearsal_dropped: IntCounterVec,
    /// Access tokens asked for by requests, by `zone`, `provider`, `source` (`kept`, `waited`, `fetched`, `refused`).
    pub provider_tokens: IntCounterVec,
    /// Fetches of access tokens by `zone`, `provider`, `outcome` (`ok`, or why not).
    pub provider_fetches: IntCounterVec,
    /// Fetches of access tokens in seconds, by `zone`, `provider`.
    pub provider_fetch_seconds: HistogramVec,
    /// Attempts to tell sinks of approvals, by `zone`, `sink`, `outcome` (`delivered`, `failed`, `given_up`, `expired`).
    pub deliveries: IntCounterVec,
    /// Secrets of applications that the files list and that are refused because they were retired, by `zone`.
    pub retired_secrets: IntGaugeVec,
    /// 1 while the ledger takes records.
    pub ledger_healthy: IntGauge,
    /// 1 while wall time and boot time agree.
    pub clock_healthy: IntGauge,
    /// 1 while marks can be made in Redis. Like the next three, shown only by a node of a fleet.
    pub redis_up: IntGaugeVec,
    /// 1 while the store of the fleet answers. Shown only by a node that shares one.
    pub store_up: IntGaugeVec,
    /// Seconds since the fleet's streams were last read to their end.
    pub stream_lag_seconds: GaugeVec,
    /// Messages passed over for their signature, by `stream`.
    pub bad_signatures: IntCounterVec,
    /// Time to make a mark in Redis, in seconds.
    pub mark_seconds: HistogramVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// A name or label that the library refuses: a mistake in this file.
    #[expect(clippy::too_many_lines, reason = "one entry a metric")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let plain = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let vec = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let lag =
            Opts::new("caracal_stream_lag_seconds", "Since the fleet's streams were read to their end.");
        let lag = GaugeVec::new(lag, &[])?;
        registry.register(Box::new(lag.clone()))?;
        let panics = IntCounter::new("caracal_panics_total", "Requests whose handler panicked.")?;
        registry.register(Box::new(panics.clone()))?;
        let refused = "Connections closed at once: too many were open.";
        let connections_refused = IntCounter::new("caracal_gateway_connections_refused_total", refused)?;
        registry.register(Box::new(connections_refused.clone()))?;
        gauge("caracal_build_info", "The running build; the value is 1.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Ok(Self {
            requests: counter(
                "caracal_gateway_requests_total",
                "Gateway requests.",
                &["zone", "resource", "code"],
            )?,
            guards: counter(
                "caracal_guard_decisions_total",
                "Guards whose condition held or had no answer, by what they did.",
                &["zone", "resource", "guard", "outcome"],
            )?,
            request_seconds: histogram(
                "caracal_gateway_request_duration_seconds",
                "Whole gateway requests.",
                &["zone", "resource"],
                &REQUEST_BUCKETS,
            )?,
            gate_seconds: histogram(
                "caracal_gateway_gate_duration_seconds",
                "From the head to the decision.",
                &["source"],
                &STAGE_BUCKETS,
            )?,
            upstream_responses: counter(
                "caracal_upstream_responses_total",
                "Upstream answers.",
                &["zone", "resource", "class"],
            )?,
            connect_failures: counter(
                "caracal_upstream_connect_failures_total",
                "Connections to upstreams that could not be made.",
                &["zone", "resource"],
            )?,
            upstream_healthy: gauge(
                "caracal_upstream_healthy",
                "1 while a place of an upstream passes its health check.",
                &["zone", "resource", "address"],
            )?,
            scrubbed: counter(
                "caracal_responses_scrubbed_total",
                "Secrets overwritten in upstream answers.",
                &["zone", "resource"],
            )?,
            budget_refusals: counter(
                "caracal_budget_refusals_total",
                "Calls refused by a budget or rate.",
                &["zone", "budget"],
            )?,
            budget_accounts: plain("caracal_budget_accounts", "Open accounts of budgets and rates.")?,
            exchanges: counter(
                "caracal_token_exchanges_total",
                "Token endpoint answers.",
                &["zone", "code"],
            )?,
            coordinator: counter(
                "caracal_coordinator_requests_total",
                "Coordinator answers.",
                &["zone", "code"],
            )?,
            in_flight: plain("caracal_gateway_requests_in_flight", "Requests in flight at the gateway.")?,
            connections: plain("caracal_gateway_connections", "Open connections at the gateway.")?,
            connections_refused,
            cuts: counter("caracal_gateway_cuts_total", "Requests ended from outside.", &["why"])?,
            panics,
            reloads: counter(
                "caracal_reloads_total",
                "Reloads of watched files.",
                &["what", "zone", "result"],
            )?,
            reload_seconds: histogram(
                "caracal_reload_duration_seconds",
                "Reloads that changed something.",
                &["until"],
                &REQUEST_BUCKETS,
            )?,
            generation: plain("caracal_snapshot_generation", "Generation of the running snapshot.")?,
            files_newer: gauge(
                "caracal_files_newer_than_snapshot",
                "1 while files on disk differ from what runs.",
                &["what"],
            )?,
            bundle_info: gauge(
                "caracal_bundle_info",
                "The running bundle; the value is 1.",
                &["zone", "digest"],
            )?,
            bundle_pinned: gauge(
                "caracal_bundle_pinned",
                "1 while an operator's version is in force instead of the files'.",
                &["zone"],
            )?,
            decision_diff: counter(
                "caracal_decision_diff_total",
                "Decisions that a candidate would make differently.",
                &["zone", "from", "to", "rule"],
            )?,
            rehearsal_compared: counter(
                "caracal_rehearsal_compared_total",
                "Decisions that a candidate was asked about.",
                &["zone"],
            )?,
            rehearsal_not_comparable: counter(
                "caracal_rehearsal_not_comparable_total",
                "Decisions that cannot be put to a candidate.",
                &["zone", "why"],
            )?,
            rehearsal_dropped: counter(
                "caracal_rehearsal_dropped_total",
                "Decisions that a candidate was not asked about because too many waited.",
                &["zone"],
            )?,
            provider_tokens: counter(
                "caracal_provider_tokens_total",
                "Access tokens asked for by requests.",
                &["zone", "provider", "source"],
            )?,
            provider_fetches: counter(
                "caracal_provider_token_fetches_total",
                "Fetches of access tokens.",
                &["zone", "provider", "outcome"],
            )?,
            provider_fetch_seconds: histogram(
                "caracal_provider_token_fetch_duration_seconds",
                "Fetches of access tokens.",
                &["zone", "provider"],
                &REQUEST_BUCKETS,
            )?,
            deliveries: counter(
                "caracal_approval_deliveries_total",
                "Attempts to tell sinks of approvals.",
                &["zone", "sink", "outcome"],
            )?,
            retired_secrets: gauge(
                "caracal_retired_secrets_listed",
                "Retired secrets that the files list, and that stay refused.",
                &["zone"],
            )?,
            ledger_healthy: plain("caracal_ledger_healthy", "1 while the ledger takes records.")?,
            store_up: gauge("caracal_store_up", "Whether the shared store answers.", &[])?,
            redis_up: gauge("caracal_redis_up", "1 while marks can be made in Redis.", &[])?,
            stream_lag_seconds: lag,
            bad_signatures: counter(
                "caracal_stream_bad_signatures_total",
                "Stream messages passed over for their signature.",
                &["stream"],
            )?,
            mark_seconds: histogram(
                "caracal_mark_duration_seconds",
                "Marks made in Redis.",
                &[],
                &STAGE_BUCKETS,
            )?,
            clock_healthy: plain("caracal_clock_healthy", "1 while wall time and boot time agree.")?,
            registry,
        })
    }

    /// The exposition text, format 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
