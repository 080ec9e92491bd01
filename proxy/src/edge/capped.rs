//! A cap on the connections of the gateway. One above it is closed before anything is read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use crate::metrics::Metrics;

/// Serves at most so many connections at a time.
pub(super) struct Capped<A> {
    inner: Arc<A>,
    most: usize,
    open: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl<A> Capped<A> {
    pub(super) fn new(inner: A, most: usize, metrics: Arc<Metrics>) -> Self {
        Self { inner: Arc::new(inner), most, open: AtomicUsize::new(0), metrics }
    }

    fn take(&self) -> Option<Taken<'_, A>> {
        let more = |open: usize| open.checked_add(1).filter(|open| *open <= self.most);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.metrics.connections_refused.inc();
            return None;
        }
        self.metrics.connections.inc();
        Some(Taken(self))
    }
}

/// One connection's place, given back when it ends, however that is.
struct Taken<'a, A>(&'a Capped<A>);

impl<A> Drop for Taken<'_, A> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connections.dec();
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Capped<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _place = self.take()?;
        // The whole life of the connection, so that it keeps its place between two requests.
        let mut next = self.inner.process_new(stream, shutdown).await;
        while let Some(stream) = next {
            next = self.inner.process_new(stream, shutdown).await;
        }
        None
    }

    async fn cleanup(&self) {
        self.inner.cleanup().await;
    }
}
