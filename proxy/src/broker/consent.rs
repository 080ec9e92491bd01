//! Asking a person, and what becomes of the answer.

use std::sync::Arc;

use tokio::sync::watch;

use super::flows::{Begun, Flow, Outcome, Returned};
use super::request::Ask;
use super::{Broker, Inner, Order, Trouble, Unavailable, ask, connection, discovery};
use crate::state::{Connection, ConnectionKey};

/// A return that was judged: whose flow it was, and what came of it.
#[derive(Debug)]
pub(crate) struct Concluded {
    /// Whose connection was asked for, where the flow was known.
    pub(crate) whose: Option<(ConnectionKey, u32)>,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

impl Broker {
    /// Begins a flow. `operator` is the uid of who asked.
    ///
    /// # Errors
    /// [`Trouble`], in words.
    pub(crate) async fn begin(
        &self,
        order: &Order,
        key: ConnectionKey,
        redirect_uri: &str,
        operator: u32,
    ) -> Result<Begun, Trouble> {
        let inner = &self.inner;
        let settings = connection::settings(order)?;
        // Found out now rather than when a person has agreed.
        order.may_ask_where_it_says()?;
        let endpoints = discovery::endpoints(inner, order, settings).await?;
        let authorization = endpoints.authorization.clone().ok_or_else(|| {
            Trouble::new(
                Unavailable::Malformed,
                "the metadata names no authorization endpoint that can be used",
            )
        })?;
        let full = || Trouble::new(Unavailable::Limited, "too many connections are being made or kept");
        if !inner.state.has_room_for_connection(&key) {
            return Err(full());
        }
        let (whose, now) = ((key, operator), inner.clock.now());
        inner.flows.begin(whose, settings, (endpoints, &authorization), redirect_uri, now).ok_or_else(full)
    }

    /// What tells how a flow ended, and until when it may; none for an unknown one.
    pub(crate) fn flow(&self, handle: &str) -> Option<(watch::Receiver<Option<Outcome>>, i64)> {
        self.inner.flows.told(handle)
    }

    /// Takes what a browser brought back. `order` makes the order of a zone's provider as they are now.
    pub(crate) async fn returned(
        &self,
        returned: Returned,
        redirect_uri: &str,
        order: impl FnOnce(&ConnectionKey) -> Option<Order>,
    ) -> Concluded {
        let flow = match self.inner.flows.take(&returned.state, self.inner.clock.now()) {
            Ok(flow) => flow,
            Err(outcome) => return Concluded { whose: None, outcome },
        };
        let order = order(&flow.key);
        let outcome = match conclude(&self.inner, &flow, returned, redirect_uri, order).await {
            Ok(connection) => Outcome {
                code: "connected",
                detail: "the tokens are kept".to_owned(),
                connection: Some(Arc::clone(&connection.id)),
            },
            Err(outcome) => outcome,
        };
        flow.over.send_replace(Some(outcome.clone()));
        Concluded { whose: Some((flow.key, flow.operator)), outcome }
    }

    /// Gives the tokens of a connection back at its server; false where that takes none.
    ///
    /// # Errors
    /// [`Trouble`], in words.
    pub(crate) async fn give_back(&self, order: &Order, row: &Arc<Connection>) -> Result<bool, Trouble> {
        connection::revoke(&self.inner, order, row).await
    }
}

async fn conclude(
    inner: &Inner,
    flow: &Flow,
    returned: Returned,
    redirect_uri: &str,
    order: Option<Order>,
) -> Result<Arc<Connection>, Outcome> {
    let endpoints = &flow.endpoints;
    let named = returned.issuer.as_deref();
    let issuer_fits = match (&endpoints.issuer, named) {
        (Some(expected), Some(named)) => expected.as_str() == named,
        (Some(_), None) => !endpoints.names_itself,
        // Without metadata its name is not known, and the code goes to the one endpoint of the bundle anyway.
        (None, _) => true,
    };
    if !issuer_fits {
        return Err(Outcome::refused("oauth_issuer_mismatch", "another authorization server answered"));
    }
    if let Some(error) = returned.error {
        let known = super::answer::known_code(&error).unwrap_or("no OAuth error code");
        let detail = format!("the authorization server says no: {known}");
        return Err(Outcome::refused("provider_oauth_denied", detail));
    }
    let Some(code) = returned.code else {
        return Err(Outcome::refused("authorization_code_required", "the answer has neither code nor error"));
    };
    let unchanged = order.filter(|order| order.service_token().is_ok_and(|token| *token == flow.token));
    let Some(order) = unchanged else {
        let detail = "the provider was changed while the person agreed; connect again";
        return Err(Outcome::refused("oauth_state_mismatch", detail));
    };
    let what = Ask::Code { code: &code, verifier: &flow.verifier, redirect_uri };
    let answer = ask(inner, &order, &flow.token, &endpoints.token, &what).await.map_err(failed)?;
    let id = inner.state.connection_id();
    let granted = connection::granted(inner, &flow.key, &id, &answer).map_err(failed)?;
    let kept = inner.state.connect(&flow.key, &id, &granted).await;
    kept.map_err(|error| Outcome::refused("state_unavailable", connection::unkept(&error).detail))
}

fn failed(trouble: Trouble) -> Outcome {
    let code = match trouble.why {
        Unavailable::Malformed => "provider_token_response_invalid",
        Unavailable::Secret
        | Unavailable::NotAddressable
        | Unavailable::Unreachable
        | Unavailable::Refused
        | Unavailable::Limited
        | Unavailable::Open
        | Unavailable::NotConnected
        | Unavailable::Lapsed => "provider_token_exchange_failed",
    };
    Outcome::refused(code, trouble.detail)
}
