//! The layer and the service it makes.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::{Gate, answer};
use crate::resource_server::{Refused, bearer};

/// Protects services for one route's requirements; made by [`Protection`](super::Protection).
#[derive(Clone, Debug)]
pub struct ProtectLayer(Gate);

impl ProtectLayer {
    pub(super) const fn new(gate: Gate) -> Self {
        Self(gate)
    }
}

impl<S> Layer<S> for ProtectLayer {
    type Service = Protect<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Protect { gate: self.0.clone(), inner }
    }
}

/// A service behind its checks.
#[derive(Clone, Debug)]
pub struct Protect<S> {
    gate: Gate,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Protect<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let gate = self.gate.clone();
        // The clone takes the place of the one that was polled ready, which serves this request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let admitted = match token(request.headers()) {
                Ok(token) => gate.admit(token).await,
                Err(refused) => Err(refused),
            };
            match admitted {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    inner.call(request).await
                }
                Err(refused) => Ok(answer::refusal(refused)),
            }
        })
    }
}

/// The bearer token; two `Authorization` fields leave it open which one counts, so neither does.
fn token(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refused::InvalidToken("authorization"));
    }
    bearer(value.and_then(|value| value.to_str().ok()))
}
