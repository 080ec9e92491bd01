//! Serving an axum router on a socket: TLS, limits, a graceful stop, and the layers every such listener wears.
//!
//! The authority, the coordinator and the ops listener are served here. The gateway is Pingora's and only
//! borrows [`ReloadingTls`].

mod layers;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::config::Config;

pub use layers::{
    BodyProblem, REQUEST_ID, RequestId, dress, json_response, peer, read_body, source, source_address,
};
pub use tls::{ReloadingTls, TlsProblem};

/// Time for a request head, and hyper's limit for an idle HTTP/1 connection. Longer than the five seconds for
/// which the official Python client reuses an idle connection, so that it never races with our close.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 128;
/// Pause after a failed accept, such as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at a time; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// Bytes of a request head; at least 8 KiB.
    pub head_bytes: usize,
    /// Header lines of a request.
    pub header_lines: usize,
    /// How long a stopping listener lets requests finish.
    pub drain: Duration,
}

impl Bounds {
    /// What the configuration says.
    #[must_use]
    pub const fn of(config: &Config) -> Self {
        Self {
            connections: config.limits.max_connections,
            head_bytes: config.limits.max_header_bytes,
            header_lines: config.limits.max_header_count,
            drain: config.shutdown_deadline,
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 4_096, head_bytes: 16 * 1024, header_lines: 100, drain: Duration::from_secs(10) }
    }
}

/// Serves `router` on `listener` until `stop` turns true or its sender is gone, then drains.
///
/// Handlers find the socket's peer as `ConnectInfo<SocketAddr>`. HTTP/1.1 and HTTP/2 are both spoken.
///
/// # Errors
/// When the TLS material cannot be used at all; trouble with one connection never ends the listener.
pub async fn serve(
    bounds: Bounds,
    listener: TcpListener,
    tls: Option<Arc<ReloadingTls>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let acceptor = tls.map(|tls| tls.acceptor()).transpose().map_err(io::Error::other)?;
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        if let Some((stream, peer, slot)) = accepted {
            let connection = Connection {
                bounds,
                peer,
                acceptor: acceptor.clone(),
                router: router.clone(),
                stop: stop.clone(),
                _slot: slot,
            };
            connections.spawn(connection.run(stream));
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    drain(connections, bounds.drain).await;
    Ok(())
}

/// The next connection, once there is a place for it; none after an accept that failed.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Lets connections end by themselves for a while, then cuts them.
async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut at the end of the drain");
        connections.shutdown().await;
    }
}

/// Resolves once the listener is to stop; a lost sender counts as a stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("the stop channel has lost its sender");
    }
}

struct Connection {
    bounds: Bounds,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stop: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Small answers should not wait for each other; a socket that cannot be told still works.
        stream.set_nodelay(true).ok();
        let Some(acceptor) = self.acceptor.clone() else {
            return self.speak(stream).await;
        };
        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            self.speak(stream).await;
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut self, stream: S) {
        let spoken = Arc::new(AtomicBool::new(false));
        let service = {
            let (peer, router, spoken) = (self.peer, self.router, Arc::clone(&spoken));
            service_fn(move |mut request: Request<Incoming>| {
                spoken.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request.map(Body::new))
            })
        };
        let builder = builder(self.bounds);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut silence = pin!(tokio::time::sleep(HEAD_TIMEOUT));
        let (mut stopping, mut waiting) = (false, true);
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stopped(&mut self.stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                // Neither the protocol sniffing nor the HTTP/2 preface has a time limit of its own in hyper.
                () = silence.as_mut(), if waiting => {
                    waiting = false;
                    if !spoken.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }
}

fn builder(bounds: Bounds) -> Builder<TokioExecutor> {
    // The HTTP library panics below its own least buffer.
    let head_bytes = bounds.head_bytes.max(8 * 1024);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(head_bytes)
        .max_headers(bounds.header_lines);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

#[cfg(test)]
mod tests;
