//! The end of a request, whoever notices it: the result record and the counters, exactly once.

use std::time::Instant;

use super::record::{self, Open};
use super::slot::{Cut, Slot};
use crate::app::App;
use crate::budgets::Cost;
use crate::gate::guards::Outcome;
use crate::gate::mcp::McpRefusal;
use crate::gate::refusal::Refusal;
use crate::gate::route::Matched;

/// Writes the result record of a request that no hook finished: cut, panicked, or dropped by the runtime.
pub(super) fn from_outside(app: &App, slot: &Slot, panicked: bool) {
    let Some(mut open) = slot.close() else { return };
    open.result.cut = slot.why();
    open.result.request_bytes = slot.received();
    open.result.response_bytes = slot.sent();
    if panicked {
        open.result.error_kind = Some("panic");
    }
    let code = open.result.cut.map_or("aborted", Cut::word);
    settle(app, open, code, None);
}

/// Writes the result record and lets go of everything the request held.
pub(super) fn settle(app: &App, open: Open, code: &str, started: Option<Instant>) {
    let Open { admission, identity, result, places, spending, membership, rehearsed } = open;
    let (zone, resource) = (&*identity.zone, &*identity.resource);
    app.metrics.requests.with_label_values(&[zone, resource, code]).inc();
    if let Some(started) = started {
        app.metrics
            .request_seconds
            .with_label_values(&[zone, resource])
            .observe(started.elapsed().as_secs_f64());
    }
    if let Some(status) = result.upstream_status {
        app.metrics.upstream_responses.with_label_values(&[zone, resource, record::class(status)]).inc();
    }
    if result.scrubbed > 0 {
        app.metrics.scrubbed.with_label_values(&[zone, resource]).inc_by(result.scrubbed);
    }
    if let Some(cut) = result.cut {
        app.metrics.cuts.with_label_values(&[cut.word()]).inc();
    }
    if let Some(spending) = spending {
        // Without an answer the upstream may have worked all the same, unless it was never reached.
        let unsaid = match result.upstream_status {
            Some(status) => status < 400,
            None => result.cut.is_some() || ["client_gone", "aborted", "upstream_timeout"].contains(&code),
        };
        let bytes = result.request_bytes.saturating_add(result.response_bytes);
        spending.settle(&app.budgets, app.fleet.as_ref(), Cost { bytes, unsaid });
    }
    admission.result(record::result(&identity, &result, app.clock.now()));
    drop((places, membership, rehearsed));
}

/// Notes why a permitted request never reached its upstream, or did not come back from it.
pub(super) fn failed(slot: &Slot, refusal: &Refusal) {
    let kind = if matches!(refusal, Refusal::UpstreamUnsafe) {
        "upstream_not_addressable"
    } else if matches!(refusal, Refusal::Exact(_)) {
        "approval_unusable"
    } else if matches!(refusal, Refusal::CredentialUnavailable) {
        "provider_host_not_allowed"
    } else if matches!(
        refusal,
        Refusal::ProviderUnavailable
            | Refusal::ProviderNotAddressable
            | Refusal::ProviderRefused
            | Refusal::ProviderRateLimited
            | Refusal::ProviderAnswerInvalid
            | Refusal::ProviderCircuitOpen
            | Refusal::CredentialNotProvisioned
            | Refusal::CredentialLapsed
    ) {
        refusal.label()
    } else if matches!(
        refusal,
        Refusal::Mcp(McpRefusal::Malformed)
            | Refusal::PathMalformed
            | Refusal::TokenMisplaced
            | Refusal::BodyTooLarge
            | Refusal::UpgradeRefused
    ) {
        "request_build_failed"
    } else if matches!(
        refusal,
        Refusal::PluginRefused(_) | Refusal::PluginFault | Refusal::ResponseEncoded | Refusal::Mcp(_)
    ) {
        "response_refused"
    } else {
        "transport_error"
    };
    slot.note(|open| {
        open.result.error_kind = Some(kind);
        open.result.status = refusal.answer().status;
    });
}

/// Counts the guards that fired. Cost: nothing where none did.
pub(super) fn count_guards(app: &App, matched: &Matched<'_>, outcome: &Outcome) {
    let Some(resource) = matched.resource() else { return };
    for (guard, word) in outcome.counted() {
        let labels = [&**matched.zone().zone.id(), &*resource.identifier, guard, word];
        app.metrics.guards.with_label_values(&labels).inc();
    }
}
