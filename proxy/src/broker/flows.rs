//! Agreements that are asked for: between the address an operator is given and the browser that comes back.
//!
//! A flow lives in this memory, for ten minutes and one return. Its `state` is 256 random bits and stands for zone,
//! provider and subject; the PKCE verifier never leaves the process but to the token endpoint.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caracal_policies::{EndpointUrl, ServiceToken};
use parking_lot::Mutex;
use percent_encoding::utf8_percent_encode;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::discovery::Endpoints;
use super::request::KEPT;
use crate::state::ConnectionKey;

/// How long a person may take, in milliseconds.
pub(crate) const FLOW_LIFE_MS: i64 = 10 * 60 * 1_000;
/// Flows that are remembered, those that are over included.
const MOST: usize = 1_000;

/// A flow that has begun.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// What an operator asks about it by; it opens nothing.
    pub(crate) handle: String,
    /// Where the person goes.
    pub(crate) url: Zeroizing<String>,
    /// Until when, unix milliseconds.
    pub(crate) until: i64,
}

/// How a flow ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// `connected`, or why not; a stable word.
    pub(crate) code: &'static str,
    /// More about it, for an operator. Nothing the other side wrote is in it.
    pub(crate) detail: String,
    /// The connection, if there is one now.
    pub(crate) connection: Option<Arc<str>>,
}

impl Outcome {
    pub(crate) fn refused(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), connection: None }
    }
}

/// What a browser brings back.
pub(crate) struct Returned {
    pub(crate) state: String,
    pub(crate) code: Option<Zeroizing<String>>,
    pub(crate) error: Option<String>,
    pub(crate) issuer: Option<String>,
}

/// What was asked for, taken out by the one return it is good for.
pub(super) struct Flow {
    pub(super) key: ConnectionKey,
    /// How the provider was when the flow began.
    pub(super) token: ServiceToken,
    pub(super) endpoints: Endpoints,
    pub(super) verifier: Zeroizing<String>,
    /// The uid of who asked.
    pub(super) operator: u32,
    pub(super) over: watch::Sender<Option<Outcome>>,
}

struct Known {
    handle: String,
    until: i64,
    told: watch::Receiver<Option<Outcome>>,
    /// None once it was used.
    flow: Option<Flow>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Flows(Mutex<HashMap<String, Known>>);

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flows")
    }
}

impl Flows {
    /// Remembers a flow; none when there are too many, or there is no randomness.
    pub(super) fn begin(
        &self,
        (key, operator): (ConnectionKey, u32),
        token: &ServiceToken,
        (endpoints, authorization): (Endpoints, &EndpointUrl),
        redirect_uri: &str,
        now: i64,
    ) -> Option<Begun> {
        let (state, verifier, handle) = (random()?, random()?, random()?);
        let url = url(token, authorization, redirect_uri, &state, &verifier);
        let until = now.saturating_add(FLOW_LIFE_MS);
        let (over, told) = watch::channel(None);
        let flow = Flow { key, token: token.clone(), endpoints, verifier, operator, over };
        let handle = handle.to_string();
        let known = Known { handle: handle.clone(), until, told, flow: Some(flow) };
        let mut flows = self.0.lock();
        // One that is over is remembered for a while: whoever comes with it again is told so.
        flows.retain(|_, known| known.until.saturating_add(FLOW_LIFE_MS) > now);
        if flows.len() >= MOST {
            return None;
        }
        flows.insert(state.to_string(), known);
        Some(Begun { handle, url, until })
    }

    /// The flow a browser came back for; nobody else gets it.
    pub(super) fn take(&self, state: &str, now: i64) -> Result<Flow, Outcome> {
        let mut flows = self.0.lock();
        let Some(known) = flows.get_mut(state) else {
            return Err(Outcome::refused("oauth_state_invalid", "nobody here asked for this"));
        };
        if known.until <= now {
            let expired = Outcome::refused("oauth_state_expired", "the ten minutes are over");
            if let Some(flow) = known.flow.take() {
                flow.over.send_replace(Some(expired.clone()));
            }
            return Err(expired);
        }
        let used = || Outcome::refused("oauth_state_used", "somebody came back with it before");
        known.flow.take().ok_or_else(used)
    }

    /// What tells how a flow ended, and until when it may.
    pub(super) fn told(&self, handle: &str) -> Option<(watch::Receiver<Option<Outcome>>, i64)> {
        let flows = self.0.lock();
        let known = flows.values().find(|known| known.handle == handle)?;
        Some((known.told.clone(), known.until))
    }
}

/// The authorization request (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
fn url(
    token: &ServiceToken,
    authorization: &EndpointUrl,
    redirect_uri: &str,
    state: &str,
    verifier: &str,
) -> Zeroizing<String> {
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let scope = token.scopes.join(" ");
    let fields = [
        ("response_type", "code"),
        ("client_id", token.client_id.as_str()),
        ("redirect_uri", redirect_uri),
        ("scope", scope.as_str()),
        ("resource", token.resource.as_deref().unwrap_or_default()),
        ("state", state),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let own = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let more = token.consent().map_or(&[][..], |consent| &consent.params);
    let all = own.chain(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut url = Zeroizing::new(authorization.as_str().to_owned());
    for (at, (name, value)) in all.enumerate() {
        url.push(if at == 0 { '?' } else { '&' });
        url.extend(utf8_percent_encode(name, KEPT));
        url.push('=');
        url.extend(utf8_percent_encode(value, KEPT));
    }
    url
}

/// 256 random bits; as a verifier, what RFC 7636 section 4.1 recommends.
fn random() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    rand::fill(&mut bytes[..]).ok()?;
    Some(Zeroizing::new(URL_SAFE_NO_PAD.encode(&bytes[..])))
}
