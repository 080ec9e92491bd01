//! Links of an answer that lead to the upstream, moved to where the caller reaches it.

use http::header::LINK;
use pingora::http::ResponseHeader;
use pingora::prelude::Result;
use pingora::proxy::Session;

use super::context::Forward;
use super::target::with_head;
use crate::app::App;
use crate::gate::head::HeadLimits;
use crate::gate::{links, route};

/// Costs an answer without `Link` one look-up.
pub(super) fn head(app: &App, session: &Session, forward: &Forward, head: &mut ResponseHeader) -> Result<()> {
    if !head.headers.contains_key(LINK) {
        return Ok(());
    }
    let Some(base) = base(app, session, forward) else { return Ok(()) };
    let moved = |field| links::moved(field, &forward.resource.upstream, &base);
    let fields: Vec<_> =
        head.headers.get_all(LINK).iter().map(|field| (moved(field), field.clone())).collect();
    if fields.iter().all(|(moved, _)| moved.is_none()) {
        return Ok(());
    }
    head.remove_header(&LINK);
    for (moved, field) in fields {
        head.append_header(LINK, moved.unwrap_or(field))?;
    }
    Ok(())
}

/// The root of the resource as the caller addressed it.
fn base(app: &App, session: &Session, forward: &Forward) -> Option<String> {
    with_head(app, session, |head, scheme| {
        let limits = &app.config.limits;
        let limits = HeadLimits { bytes: limits.max_header_bytes, lines: limits.max_header_count };
        let host = head.frame(limits).ok()?;
        if !host.is_plain() {
            return None;
        }
        let prefix = route::prefix(&forward.snapshot, &host, head)?;
        Some(format!("{scheme}://{}{prefix}", host.authority))
    })
}
