//! The proxy's hooks. Each is a few lines that call one stage; the security path itself is [`super::govern`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{COOKIE, HOST, SET_COOKIE};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{Error, ErrorType, HttpPeer, Result};
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::{ErrorSource, OrErr};

use super::context::{Ctx, Forward, Governed, Pace, Replay};
use super::finish;
use super::last_word::{self, CuttableDial};
use super::live::Counted;
use super::secured;
use super::slot::Cut;
use super::switching::UpgradeDial;
use super::{exact, links, mcp, meter, posted, protocol, replay, respond, search};
use crate::app::App;
use crate::gate::refusal::Refusal;
use crate::gate::{authorize, response};
use crate::refusal::Particulars;

/// The gateway's hooks over the shared application state.
pub(super) struct Gateway {
    app: Arc<App>,
    /// Numbers the upstream connections that are never shared.
    streams: AtomicU64,
}

impl Gateway {
    pub(super) const fn new(app: Arc<App>) -> Self {
        Self { app, streams: AtomicU64::new(1) }
    }

    fn source_address(&self, session: &Session) -> IpAddr {
        let socket = session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip);
        let socket = socket.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
        crate::listen::source_address(socket, &session.req_header().headers, &self.app.config.trusted_proxies)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new()
    }

    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        session.set_keepalive(Some(KEEPALIVE_S));
        let sent = session.req_header().headers.get("x-request-id").and_then(|value| value.to_str().ok());
        ctx.client_request_id = sent.filter(|id| well_formed_request_id(id)).map(str::to_owned);
        ctx.request_id = ctx.client_request_id.clone().unwrap_or_else(|| ctx.own_id.clone());
        ctx.counted = Some(Counted::new(&self.app.metrics.in_flight));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if let Some((status, body)) = self.probe(session) {
            respond::plain(session, status, body).await;
            return Ok(true);
        }
        if let Some(document) = mcp::document(&self.app, session) {
            respond::plain(session, 200, document.to_string()).await;
            return Ok(true);
        }
        let peer = self.source_address(session);
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        match posted::govern(&self.app, session, peer, tls, ctx).await {
            Ok(Governed::Settled(settled)) => {
                respond::repeat(session, &settled, ctx).await;
                Ok(true)
            }
            Ok(Governed::Forward(forward)) => {
                // For each write, so that a slow reader is served to the end and one that stopped holds nothing up.
                session.set_write_timeout(Some(forward.resource.limits.idle_timeout));
                ctx.forward = Some(*forward);
                Ok(false)
            }
            Err(refused) => {
                ctx.refused = Some(refused.refusal);
                let refusal = refused.refusal;
                let particulars = refused.particulars(&ctx.request_id, self.app.clock.now());
                let told = mcp::told(&self.app, session, ctx, &refusal);
                respond::refuse(session, &refusal, &particulars, &told).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let forward = ctx.forward.as_mut().ok_or_else(no_permit)?;
        let address = *forward.addresses.get(ctx.unreached).ok_or_else(no_permit)?;
        forward.ride = (forward.addresses.len() > 1).then(|| self.app.targets.ride(address));
        let mut peer = secured::peer(address, &forward.resource, forward.secured.as_deref());
        let limits = &forward.resource.limits;
        peer.options.connection_timeout = Some(limits.connect_timeout);
        peer.options.total_connection_timeout = Some(limits.connect_timeout.saturating_mul(2));
        peer.options.read_timeout = Some(match forward.pace {
            Pace::Events | Pace::Grpc => limits.idle_timeout.max(limits.response_timeout),
            Pace::Steady => limits.response_timeout,
        });
        peer.options.write_timeout = Some(limits.idle_timeout);
        peer.options.idle_timeout = Some(UPSTREAM_IDLE);
        let alone = forward.pace == Pace::Events && !peer.is_tls();
        protocol::choose(&mut peer, forward.resource.protocol, forward.upgrade, alone);
        if forward.keeping.is_some() {
            // The yes is used up: one that the upstream had closed in the pool would have cost it.
            peer.group_key = self.streams.fetch_add(1, Ordering::Relaxed);
        }
        if alone || forward.upgrade {
            // One connection for one stream: it ends with it, and nobody else may be given it.
            peer.group_key = self.streams.fetch_add(1, Ordering::Relaxed);
            peer.options.custom_l4 = Some(if alone {
                Arc::new(CuttableDial(Arc::clone(&ctx.slot)))
            } else {
                Arc::new(UpgradeDial)
            });
        }
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some(Forward { addresses, ride: Some(_), .. }) = &ctx.forward
            && let Some(address) = addresses.get(ctx.unreached)
        {
            if !reused {
                self.app.targets.reached(*address);
            }
            ctx.slot.note(|open| open.result.upstream_address = Some(*address));
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(forward) = &ctx.forward else { return error };
        let labels = [&*forward.zone, &*forward.resource.identifier];
        self.app.metrics.connect_failures.with_label_values(&labels).inc();
        if let (Some(_), Some(address)) = (&forward.ride, forward.addresses.get(ctx.unreached)) {
            self.app.targets.failed(*address, self.app.clock.now());
        }
        ctx.unreached = ctx.unreached.saturating_add(1);
        // Nothing was sent, so it may go elsewhere whatever it is.
        error.set_retry(ctx.unreached < forward.addresses.len() && ctx.slot.why().is_none());
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let forward = ctx.forward.as_ref().ok_or_else(no_permit)?;
        if session.req_header().method.as_str() != forward.head.method {
            return Error::e_explain(ErrorType::InternalError, "the method changed after the decision");
        }
        if !protocol::allows(forward.resource.protocol, upstream.version) {
            let why = "it agreed to another protocol than HTTP/2".to_owned();
            self.app.egress.tell(&forward.resource.upstream, why);
            ctx.refused = Some(Refusal::UpstreamFailed);
            return Error::e_explain(ErrorType::ConnectError, "the upstream does not speak HTTP/2");
        }
        upstream.set_raw_path(forward.head.target.as_bytes())?;
        for name in &forward.head.remove {
            upstream.remove_header(name);
        }
        for (name, value) in &forward.head.set {
            upstream.insert_header(name.clone(), value.clone())?;
        }
        join_cookies(upstream)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        posted::replay(ctx, body, end);
        let received = ctx.slot.count_received(body.as_ref().map_or(0, Bytes::len));
        let cap = ctx.forward.as_ref().map_or(0, |forward| forward.resource.limits.max_request_bytes);
        if received > cap {
            return Error::e_explain(ErrorType::HTTPStatus(413), "request body over the limit");
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let status = head.status.as_u16();
        if status == 401 {
            replay::rejected(&self.app, ctx, session.is_body_empty()).await?;
        }
        let Some(forward) = &mut ctx.forward else { return Ok(()) };
        if let Err(refusal) = mcp::head(&mut forward.watched, head) {
            ctx.refused = Some(refusal);
            return Error::e_explain(ErrorType::InternalError, "the answer cannot be read");
        }
        if !head.status.is_informational() || status == 101 {
            let now = self.app.clock.now();
            ctx.slot.note(|open| {
                open.result.upstream_status = Some(status);
                open.result.head_at = Some(now);
            });
        }
        if let Some(meter) = &mut forward.meter {
            let found = meter.head(&head.headers);
            meter::keep(&ctx.slot, &found);
        }
        match search::head(forward, head)? {
            Ok(found) => {
                ctx.slot.note(|open| open.result.scrubbed = open.result.scrubbed.saturating_add(found))
            }
            Err(stop) => {
                ctx.refused = Some(authorize::stopped(stop));
                return Error::e_explain(ErrorType::InternalError, "a response plugin refused or failed");
            }
        }
        if search::is_impossible(forward, head) {
            ctx.refused = Some(Refusal::ResponseEncoded);
            return Error::e_explain(ErrorType::InternalError, "the body cannot be searched");
        }
        links::head(&self.app, session, forward, head)?;
        let kept = response::kept_cookies(&forward.resource, &head.headers);
        for name in response::removals(&forward.resource, forward.injected, &head.headers) {
            head.remove_header(&name);
        }
        if forward.injected && !forward.resource.cookies.is_empty() {
            head.remove_header(&SET_COOKIE);
            for cookie in kept {
                head.append_header(SET_COOKIE, cookie)?;
            }
        }
        head.insert_header("X-Request-Id", ctx.request_id.as_str())?;
        head.insert_header("X-Caracal-Token-Expires-In", forward.expires_in.to_string())?;
        exact::head(forward, head);
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if let Some(meter) = ctx.forward.as_mut().and_then(|forward| forward.meter.as_mut()) {
            let found = meter.piece(body.as_deref().unwrap_or_default(), end);
            meter::keep(&ctx.slot, &found);
        }
        mcp::body_piece(ctx, body, end)?;
        if let Some(forward) = &mut ctx.forward {
            let found = search::body(forward, body, end);
            if found > 0 {
                ctx.slot.note(|open| open.result.scrubbed = open.result.scrubbed.saturating_add(found));
            }
            exact::piece(forward, body.as_ref(), end);
        }
        ctx.slot.count_sent(body.as_ref().map_or(0, Bytes::len));
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut http::HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        if let Some(forward) = &ctx.forward {
            if let Some(scrubber) = &forward.scrubber {
                scrubber.scrub_headers(trailers);
            }
            if let Some(Err(stop)) = forward
                .chain
                .as_ref()
                .map(|chain| chain.on_response(0, trailers, forward.scrubber.as_deref()))
            {
                ctx.refused = Some(authorize::stopped(stop));
                return Error::e_explain(ErrorType::InternalError, "a response plugin refused or failed");
            }
            response::clean_trailers(&forward.resource, forward.injected, trailers);
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        // The upstream said that it did not carry the request out: see `replay`.
        if ctx.replay == Replay::Due && session.response_written().is_none() {
            ctx.replay = Replay::Done;
            error.set_retry(true);
            return error;
        }
        let begun = ctx.resent || ctx.slot.why().is_some() || session.response_written().is_some();
        if !begun && protocol::untouched(&error) && !session.as_ref().retry_buffer_truncated() {
            ctx.resent = true;
            ctx.slot.receive_again();
            return error;
        }
        // Otherwise only where nothing can have happened upstream twice: a safe method without a body, on a pooled
        // connection that the upstream had already closed.
        let safe = matches!(session.req_header().method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let unanswered = ctx.slot.received() == 0 && session.response_written().is_none();
        if safe && reused && unanswered && !ctx.resent {
            ctx.resent = true;
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        if let Some(why) = ctx.slot.why() {
            last_word::say(session, why).await;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let refusal = ctx.refused.unwrap_or_else(|| proxy_failure(error));
        if let (Refusal::UpstreamUntrusted, Some(forward)) = (refusal, &ctx.forward) {
            let why = error.root_cause().to_string();
            self.app.egress.tell(&forward.resource.upstream, why);
        }
        finish::failed(&ctx.slot, &refusal);
        let status = refusal.answer().status;
        if session.response_written().is_none() && refusal != Refusal::ClientGone {
            // The connection is closed after this answer, and the answer says so: a client that keeps it in its
            // pool would lose the next request.
            session.set_keepalive(None);
            let particulars = Particulars {
                request_id: ctx.request_id.clone(),
                decision_id: ctx.slot.decision_id(),
                reason: refusal.reason(),
                format: ctx.forward.as_ref().map(|forward| forward.resource.error_format).unwrap_or_default(),
                ..Particulars::default()
            };
            let told = mcp::told(&self.app, session, ctx, &refusal);
            respond::refuse(session, &refusal, &particulars, &told).await;
        }
        ctx.refused = Some(refusal);
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        let whole = error.is_none() && ctx.refused.is_none() && ctx.slot.why().is_none();
        exact::over(ctx, whole);
        let written = session.response_written().map_or(0, |head| head.status.as_u16());
        let status = match ctx.refused {
            Some(refusal @ (Refusal::ClientGone | Refusal::UpstreamFailed)) if written == 0 => {
                refusal.answer().status
            }
            // In the form of gRPC the head says 200, whatever was refused.
            Some(refusal) if session.response_written().is_some_and(respond::is_refusal) => {
                refusal.answer().status
            }
            _ => written,
        };
        let sent = u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX);
        let (cut, received) = (ctx.slot.why(), ctx.slot.received());
        ctx.slot.note(|open| {
            open.result.cut = cut;
            open.result.status = status;
            open.result.response_bytes = sent;
            open.result.request_bytes = received;
        });
        if let Some(open) = ctx.slot.close() {
            let passed = if open.result.replayed.is_some() { "replayed" } else { "ok" };
            let code = cut.map_or_else(|| ctx.refused.map_or(passed, |refusal| refusal.label()), Cut::word);
            finish::settle(&self.app, open, code, Some(ctx.started));
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        // The ledger and the metrics have it; Pingora's line would carry the query string.
        true
    }

    fn request_summary(&self, session: &Session, ctx: &Ctx) -> String {
        format!("{} request {}", session.req_header().method, ctx.request_id)
    }
}

impl Gateway {
    /// `/health` and `/ready` answer here only when the request names no resource and nothing is routed there.
    fn probe(&self, session: &Session) -> Option<(u16, &'static str)> {
        let header = session.req_header();
        let path = header.uri.path();
        if !matches!(path, "/health" | "/ready") || header.headers.contains_key("x-caracal-resource") {
            return None;
        }
        let snapshot = self.app.snapshot.load();
        let named = header.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = header.uri.authority().map(http::uri::Authority::as_str).or(named).unwrap_or_default();
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        if snapshot.routes.by_host(name).is_some() || snapshot.routes.by_prefix(path).is_some() {
            return None;
        }
        Some(match (path, self.app.readiness()) {
            ("/health", _) => (200, ""),
            (_, Ok(())) => (200, r#"{"ok":true,"ready":true}"#),
            (_, Err(_)) => (503, r#"{"ok":false,"ready":false}"#),
        })
    }
}

/// Nothing goes upstream without a permit: a request that got here without one ends.
fn no_permit() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "no permit")
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 upstreams expect one (RFC 9113 section 8.2.3).
fn join_cookies(upstream: &mut RequestHeader) -> Result<()> {
    let fields: Vec<_> =
        upstream.headers.get_all(COOKIE).iter().map(|field| field.as_bytes().to_vec()).collect();
    if fields.len() > 1 {
        let joined = fields.join(&b"; "[..]);
        let value = http::HeaderValue::from_bytes(&joined).or_err(ErrorType::InvalidHTTPHeader, "cookie")?;
        upstream.insert_header(COOKIE, value)?;
    }
    Ok(())
}

fn proxy_failure(error: &Error) -> Refusal {
    use ErrorType::{
        ConnectTimedout, Custom, HTTPStatus, InvalidCert, ReadTimedout, TLSHandshakeFailure,
        TLSHandshakeTimedout, WriteTimedout,
    };
    match (error.etype(), error.esource()) {
        (HTTPStatus(413), _) => Refusal::BodyTooLarge,
        // By the names Pingora gives them: the constants are its own.
        (Custom("InvalidChunk" | "InvalidTrailerEnd"), ErrorSource::Downstream) => Refusal::BodyMalformed,
        (ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout, ErrorSource::Upstream) => {
            Refusal::UpstreamTimeout
        }
        (TLSHandshakeFailure | InvalidCert, ErrorSource::Upstream) => Refusal::UpstreamUntrusted,
        (_, ErrorSource::Upstream) => Refusal::UpstreamFailed,
        (_, ErrorSource::Downstream) => Refusal::ClientGone,
        (_, ErrorSource::Internal | ErrorSource::Unset) => Refusal::Internal,
    }
}

fn well_formed_request_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

/// How long an idle caller connection is kept, in seconds.
const KEEPALIVE_S: u64 = 60;

/// How long an idle upstream connection is pooled: below what common servers keep.
const UPSTREAM_IDLE: Duration = Duration::from_secs(20);
