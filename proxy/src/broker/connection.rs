//! The tokens of a connection: opened, renewed before they expire, and by one node at a time.

use std::sync::Arc;
use std::time::Duration;

use caracal_policies::{Grant, ServiceToken};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::request::Ask;
use super::slot::{AHEAD_MS, SKEW_MS};
use super::{Inner, Order, Token, Trouble, Unavailable, ask, discovery};
use crate::secrets::Lookout;
use crate::state::{Claimed, Connection, ConnectionKey, ConnectionStatus, Granted, StateError};

/// How long one node may ask before another one does, in milliseconds: longer than two attempts take.
const CLAIM_MS: i64 = 25_000;
/// How often a node looks whether another one is done, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS: u32 = 500;
/// Attempts to keep fresh tokens, and the pause between them: what is lost may not be had again.
const COMMITS: u32 = 3;
const COMMIT_PAUSE: Duration = Duration::from_millis(100);

/// What is sealed.
pub(super) struct Tokens {
    pub(super) access: Zeroizing<String>,
    pub(super) refresh: Option<Zeroizing<String>>,
}

/// The connection's access token, renewed if it has to be. `spent` is one that an upstream did not take.
pub(super) async fn token(inner: &Inner, order: &Order, spent: Option<&str>) -> Result<Token, Trouble> {
    let gone = || Trouble::new(Unavailable::NotConnected, "there is no connection");
    let meant = order.connection.as_ref().ok_or_else(gone)?;
    for _ in 0..LOOKS {
        let known = inner.state.connection(&meant.key).filter(|known| known.id == meant.id);
        let row = known.ok_or_else(gone)?;
        match row.status {
            ConnectionStatus::Active => {}
            ConnectionStatus::Expired => return Err(lapsed()),
            ConnectionStatus::Revoked => return Err(gone()),
        }
        let tokens = open(inner, &row)?;
        let kept = kept(order, &row, &tokens);
        let now = inner.clock.now();
        let rejected = spent == Some(&*kept.fingerprint);
        let Some(refresh) = tokens.refresh.filter(|_| row.renewable) else {
            return if now < kept.usable_until { Ok(kept) } else { lapse(inner, order, &row).await };
        };
        if now < kept.refresh_at && !rejected {
            return Ok(kept);
        }
        let until = now.saturating_add(CLAIM_MS);
        match inner.state.claim_connection(&row, until).await.map_err(|error| unkept(&error))? {
            Claimed::Ours(row) => return renew(inner, order, &row, &refresh).await,
            Claimed::Changed => {}
            // Somebody else is at it; meanwhile the old one does.
            Claimed::Theirs(_) if now < kept.usable_until && !rejected => return Ok(kept),
            Claimed::Theirs(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    Err(Trouble::new(Unavailable::Unreachable, "another node does not come to an end with it"))
}

async fn renew(
    inner: &Inner,
    order: &Order,
    row: &Connection,
    refresh: &Zeroizing<String>,
) -> Result<Token, Trouble> {
    let settings = order.service_token()?;
    let endpoint = discovery::endpoints(inner, order, settings).await?.token;
    let mut answer = match ask(inner, order, settings, &endpoint, &Ask::Refresh(refresh)).await {
        Ok(answer) => answer,
        Err(trouble) if trouble.spent => {
            tracing::warn!(
                zone = &*row.key.zone,
                provider = &*row.key.provider,
                connection = &*row.id,
                detail = trouble.detail,
                "a connection cannot be renewed any more; it ends with its access token"
            );
            return lapse(inner, order, row).await;
        }
        Err(trouble) => return Err(trouble),
    };
    // RFC 6749 section 6: without a new one, the old one goes on.
    answer.refresh_token.get_or_insert_with(|| refresh.clone());
    let granted = granted(inner, &row.key, &row.id, &answer)?;
    let (row, ours) = keep(inner, row, &granted).await?;
    if !ours {
        return Err(Trouble::new(Unavailable::NotConnected, "the connection was ended meanwhile"));
    }
    let tokens = Tokens { access: answer.access_token, refresh: answer.refresh_token };
    Ok(kept(order, &row, &tokens))
}

/// Writes down what was granted: the refresh token before it may be good for nothing now, so it is tried several times.
async fn keep(
    inner: &Inner,
    row: &Connection,
    granted: &Granted,
) -> Result<(Arc<Connection>, bool), Trouble> {
    let mut outcome = inner.state.renew_connection(row, granted).await;
    for _ in 1..COMMITS {
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(COMMIT_PAUSE).await;
        outcome = inner.state.renew_connection(row, granted).await;
    }
    outcome.map_err(|error| unkept(&error))
}

/// What is left of a connection that cannot be renewed: its access token, until that is over.
async fn lapse(inner: &Inner, order: &Order, row: &Connection) -> Result<Token, Trouble> {
    let (row, _) = inner.state.lapse_connection(row).await.map_err(|error| unkept(&error))?;
    match row.status {
        ConnectionStatus::Active => open(inner, &row).map(|tokens| kept(order, &row, &tokens)),
        ConnectionStatus::Expired => Err(lapsed()),
        ConnectionStatus::Revoked => Err(Trouble::new(Unavailable::NotConnected, "the connection was ended")),
    }
}

/// The token as a request uses it. One that cannot be renewed is used to its end.
fn kept(order: &Order, row: &Connection, tokens: &Tokens) -> Token {
    let ends = row.expires_at.unwrap_or(i64::MAX);
    let life = ends.saturating_sub(row.refreshed_at);
    let (usable_until, refresh_at) = if row.renewable {
        let usable = ends.saturating_sub(SKEW_MS);
        (usable, usable.saturating_sub(AHEAD_MS.min(life / 5)))
    } else {
        (ends, ends)
    };
    Token {
        fingerprint: order.snapshot.secrets.fingerprint_of(&tokens.access),
        value: tokens.access.clone(),
        expires_at: ends,
        secrets_generation: order.snapshot.secrets_generation,
        usable_until,
        refresh_at,
        lookout: Lookout::default(),
    }
}

/// The tokens of an answer, sealed for one connection.
pub(super) fn granted(
    inner: &Inner,
    key: &ConnectionKey,
    id: &str,
    answer: &Answer,
) -> Result<Granted, Trouble> {
    // Neither token holds a line break: that is checked where they are read.
    let refresh = answer.refresh_token.as_ref();
    let mut plain = Zeroizing::new(Vec::with_capacity(
        answer.access_token.len().saturating_add(refresh.map_or(0, |token| token.len())).saturating_add(1),
    ));
    plain.extend_from_slice(answer.access_token.as_bytes());
    if let Some(refresh) = refresh {
        plain.push(b'\n');
        plain.extend_from_slice(refresh.as_bytes());
    }
    let sealed = inner.sealing.seal(&location(key, id), &plain);
    let sealed = sealed.map_err(|error| Trouble::new(Unavailable::Secret, error.to_string()))?;
    let life = answer.stated_s.map(|seconds| seconds.saturating_mul(1_000));
    Ok(Granted {
        sealed: sealed.into(),
        renewable: refresh.is_some(),
        expires_at: life.map(|life| inner.clock.now().saturating_add(life)),
    })
}

pub(super) fn open(inner: &Inner, row: &Connection) -> Result<Tokens, Trouble> {
    let opened = inner.sealing.open(&location(&row.key, &row.id), &row.sealed).map_err(|error| {
        let detail = format!("a connection's tokens cannot be opened with this node's sealing key: {error}");
        Trouble::new(Unavailable::Secret, detail)
    })?;
    let unreadable = || Trouble::new(Unavailable::Secret, "a connection's tokens are damaged");
    let text = std::str::from_utf8(&opened).ok().ok_or_else(unreadable)?;
    let (access, refresh) = match text.split_once('\n') {
        Some((access, refresh)) => (access, Some(Zeroizing::new(refresh.to_owned()))),
        None => (text, None),
    };
    Ok(Tokens { access: Zeroizing::new(access.to_owned()), refresh })
}

/// Binds the tokens to their row: those of one cannot be put in the place of another's.
fn location(key: &ConnectionKey, id: &str) -> String {
    let ConnectionKey { zone, provider, subject } = key;
    format!("caracal/connections/{id}/{zone}/{}/{provider}/{subject}", provider.len())
}

/// The settings of a provider that has connections.
pub(super) fn settings(order: &Order) -> Result<&ServiceToken, Trouble> {
    let none = || Trouble::new(Unavailable::Secret, "this kind of provider has no connections");
    let token = order.service_token()?;
    matches!(token.grant, Grant::AuthorizationCode(_)).then_some(token).ok_or_else(none)
}

/// Gives the tokens back (RFC 7009), the one that renews before the one that is used.
pub(super) async fn revoke(inner: &Inner, order: &Order, row: &Arc<Connection>) -> Result<bool, Trouble> {
    let settings = settings(order)?;
    let Some(endpoint) = discovery::endpoints(inner, order, settings).await?.revocation else {
        return Ok(false);
    };
    let tokens = open(inner, row)?;
    let refresh = tokens.refresh.map(|token| (token, "refresh_token"));
    for (token, hint) in refresh.into_iter().chain([(tokens.access, "access_token")]) {
        let what = Ask::Revoke(&token, hint);
        let request = super::request::build(order, settings, &endpoint, &what, inner.clock.now())?;
        let (status, _) = inner.http.ask(request).await?;
        if !status.is_success() {
            let detail = format!("the revocation endpoint answers {}", status.as_u16());
            return Err(Trouble::new(Unavailable::Refused, detail));
        }
    }
    Ok(true)
}

fn lapsed() -> Trouble {
    Trouble::new(Unavailable::Lapsed, "the connection is over and cannot be renewed")
}

pub(super) fn unkept(error: &StateError) -> Trouble {
    Trouble::new(Unavailable::Unreachable, format!("the store does not keep the connection: {error}"))
}
