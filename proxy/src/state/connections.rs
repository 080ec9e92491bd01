//! Connections: what somebody agreed to at an authorization server, kept sealed. The state looks into no token.
//!
//! Every change raises the version of a row and is committed only over the version it was made from. Before a node of
//! a fleet asks for fresh tokens it claims the row, so that no two of them show the same refresh token.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::State;
use super::again::Again;
use super::error::StateError;
use super::shared::{Shared, new_id};
use super::store::Write;
use super::writer::Intent;

/// The subject of a connection that is nobody's own.
pub const SHARED_SUBJECT: &str = "caracal:shared";

/// Connections of a zone.
const MOST: usize = 100_000;

/// Whose connection to which provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// The zone.
    pub zone: Arc<str>,
    /// The provider's identifier.
    pub provider: Arc<str>,
    /// The subject, or [`SHARED_SUBJECT`].
    pub subject: Arc<str>,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// It can be used, or renewed.
    Active,
    /// Over, and not renewable.
    Expired,
    /// Ended by an operator.
    Revoked,
}

impl ConnectionStatus {
    /// The word in the store and for operators.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Expired, Self::Revoked].into_iter().find(|status| status.as_str() == word)
    }
}

/// One connection. Times are unix milliseconds.
#[derive(Clone)]
pub struct Connection {
    /// Whose it is.
    pub key: ConnectionKey,
    /// New with every agreement.
    pub id: Arc<str>,
    /// Rises with every change.
    pub version: u64,
    /// How it stands.
    pub status: ConnectionStatus,
    /// The tokens, sealed; empty once it was ended.
    pub sealed: Arc<[u8]>,
    /// Whether fresh tokens can be had.
    pub renewable: bool,
    /// When it was agreed to.
    pub created_at: i64,
    /// When its tokens were got.
    pub refreshed_at: i64,
    /// When its access token is over, if that is known.
    pub expires_at: Option<i64>,
    /// Which node asks for fresh tokens now, and until when nobody else does.
    pub(super) claim: Option<(Arc<str>, i64)>,
}

impl Connection {
    fn is_revoked(&self) -> bool {
        self.status == ConnectionStatus::Revoked
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({} {} {})", self.id, self.version, self.status.as_str())
    }
}

/// What an authorization server gave.
#[derive(Clone)]
pub struct Granted {
    /// The tokens, sealed.
    pub sealed: Arc<[u8]>,
    /// Whether there is a refresh token among them.
    pub renewable: bool,
    /// When the access token is over, if that is known.
    pub expires_at: Option<i64>,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Granted")
    }
}

/// What became of a claim.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// This node may ask.
    Ours(Arc<Connection>),
    /// Another one asks, until then.
    Theirs(i64),
    /// The row is not the one that was meant any more.
    Changed,
}

/// Every connection this node knows.
#[derive(Debug, Default)]
pub(super) struct Connections(RwLock<HashMap<ConnectionKey, Arc<Connection>>>);

impl Connections {
    pub(super) fn find(&self, key: &ConnectionKey) -> Option<Arc<Connection>> {
        self.0.read().get(key).cloned()
    }

    /// Takes a row of the store in; an older one than is known changes nothing, and an end is final.
    pub(super) fn put(&self, row: Arc<Connection>) {
        let mut rows = self.0.write();
        let kept = match rows.get(&row.key) {
            Some(known) if known.version > row.version => return,
            Some(known) if known.id == row.id && known.is_revoked() && !row.is_revoked() => {
                let version = row.version.saturating_add(1);
                Arc::new(Connection { version, ..Connection::clone(known) })
            }
            Some(known) if known.version == row.version => return,
            Some(_) | None => row,
        };
        rows.insert(kept.key.clone(), kept);
    }
}

impl State {
    /// The connection, whatever its standing.
    #[must_use]
    pub fn connection(&self, key: &ConnectionKey) -> Option<Arc<Connection>> {
        self.shared.connections.find(key)
    }

    /// Whether this very connection is still the one of its subject, and was not ended.
    #[must_use]
    pub fn connection_stands(&self, connection: &Connection) -> bool {
        let rows = self.shared.connections.0.read();
        rows.get(&connection.key).is_some_and(|known| known.id == connection.id && !known.is_revoked())
    }

    /// The connections of one subject that were not ended, in order of the provider.
    #[must_use]
    pub fn connections_of(&self, zone: &str, subject: &str) -> Vec<Arc<Connection>> {
        let mut found = self.list_connections(zone);
        found.retain(|row| &*row.key.subject == subject && !row.is_revoked());
        found
    }

    /// Every connection of a zone, in order of provider and subject.
    #[must_use]
    pub fn list_connections(&self, zone: &str) -> Vec<Arc<Connection>> {
        let rows = self.shared.connections.0.read();
        let mut found: Vec<_> = rows.values().filter(|row| &*row.key.zone == zone).cloned().collect();
        found.sort_by(|a, b| (&a.key.provider, &a.key.subject).cmp(&(&b.key.provider, &b.key.subject)));
        found
    }

    /// Keeps what was agreed to, in the place of what there was. `id` is the new connection's.
    ///
    /// # Errors
    /// [`StateError`] when it is not committed: then everything is as before.
    pub async fn connect(
        &self,
        key: &ConnectionKey,
        id: &Arc<str>,
        granted: &Granted,
    ) -> Result<Arc<Connection>, StateError> {
        let now = self.shared.clock.now();
        self.change_connection(key, |known| {
            Some(Connection {
                key: key.clone(),
                id: Arc::clone(id),
                version: known.map_or(1, |known| known.version.saturating_add(1)),
                status: ConnectionStatus::Active,
                sealed: Arc::clone(&granted.sealed),
                renewable: granted.renewable,
                created_at: now,
                refreshed_at: now,
                expires_at: granted.expires_at,
                claim: None,
            })
        })
        .await
        .map(|(row, _)| row)
    }

    /// A new connection's id.
    #[must_use]
    pub fn connection_id(&self) -> Arc<str> {
        new_id(self.shared.clock.now())
    }

    /// Whether another connection may be made in a zone.
    #[must_use]
    pub fn has_room_for_connection(&self, key: &ConnectionKey) -> bool {
        let rows = self.shared.connections.0.read();
        rows.contains_key(key) || rows.keys().filter(|known| known.zone == key.zone).count() < MOST
    }

    /// Makes sure that nobody else asks for fresh tokens of `meant` before `until`. Costs a node that shares its store
    /// with no other nothing.
    ///
    /// # Errors
    /// [`StateError`] when the store does not say.
    pub async fn claim_connection(&self, meant: &Connection, until: i64) -> Result<Claimed, StateError> {
        let ours: Arc<str> = self.epoch.as_str().into();
        let now = self.shared.clock.now();
        let same = |known: &Connection| {
            known.id == meant.id && known.version == meant.version && known.status == ConnectionStatus::Active
        };
        if !self.in_fleet {
            let known = self.connection(&meant.key).filter(|known| same(known));
            return Ok(known.map_or(Claimed::Changed, Claimed::Ours));
        }
        let mut theirs = None;
        let outcome = self
            .change_connection(&meant.key, |known| {
                theirs = None;
                let known = known.filter(|known| same(known))?;
                if let Some((by, until)) = known.claim.as_ref().filter(|(_, until)| *until > now)
                    && *by != ours
                {
                    theirs = Some(*until);
                    return None;
                }
                let version = known.version.saturating_add(1);
                Some(Connection {
                    version,
                    claim: Some((Arc::clone(&ours), until)),
                    ..Connection::clone(known)
                })
            })
            .await;
        match (outcome, theirs) {
            (Ok((row, true)), _) => Ok(Claimed::Ours(row)),
            (_, Some(until)) => Ok(Claimed::Theirs(until)),
            (Ok((_, false)) | Err(StateError::Behind), None) => Ok(Claimed::Changed),
            (Err(error), None) => Err(error),
        }
    }

    /// Puts fresh tokens in the place of those of `from`; the row as it is now, and whether it is this change.
    ///
    /// # Errors
    /// [`StateError`] when it is not committed.
    pub async fn renew_connection(
        &self,
        from: &Connection,
        granted: &Granted,
    ) -> Result<(Arc<Connection>, bool), StateError> {
        let now = self.shared.clock.now();
        self.change_connection(&from.key, |known| {
            let known = known.filter(|known| known.id == from.id && known.version == from.version)?;
            Some(Connection {
                version: known.version.saturating_add(1),
                sealed: Arc::clone(&granted.sealed),
                renewable: granted.renewable,
                refreshed_at: now,
                expires_at: granted.expires_at,
                claim: None,
                ..Connection::clone(known)
            })
        })
        .await
    }

    /// Notes that there are no fresh tokens to be had for `from`: it is used until its end, and over with it.
    ///
    /// # Errors
    /// [`StateError`] when it is not committed.
    pub async fn lapse_connection(&self, from: &Connection) -> Result<(Arc<Connection>, bool), StateError> {
        let now = self.shared.clock.now();
        self.change_connection(&from.key, |known| {
            let known = known.filter(|known| known.id == from.id && known.version == from.version)?;
            let over = known.expires_at.is_some_and(|at| at <= now);
            Some(Connection {
                version: known.version.saturating_add(1),
                status: if over { ConnectionStatus::Expired } else { ConnectionStatus::Active },
                renewable: false,
                claim: None,
                ..Connection::clone(known)
            })
        })
        .await
    }

    /// Ends the connection and forgets its tokens; the row as it was, none when there is nothing to end.
    ///
    /// In force here before it is committed, and committed later when that fails.
    ///
    /// # Errors
    /// [`StateError`] when it is not committed yet.
    pub async fn end_connection(&self, key: &ConnectionKey) -> Result<Option<Arc<Connection>>, StateError> {
        let (before, commit) = {
            let mut rows = self.shared.connections.0.write();
            let standing = rows.get(key).filter(|row| !row.is_revoked()).cloned();
            let Some(before) = standing else { return Ok(None) };
            let row = Arc::new(Connection {
                // Past whatever is on its way to the store.
                version: before.version.saturating_add(2),
                status: ConnectionStatus::Revoked,
                sealed: Arc::default(),
                renewable: false,
                claim: None,
                ..Connection::clone(&before)
            });
            rows.insert(key.clone(), Arc::clone(&row));
            let commit = self.shared.queue.commit(vec![Write::ConnectionEnded(row)], Intent::Narrow);
            (before, commit)
        };
        commit.done().await?;
        Ok(Some(before))
    }

    /// Ends every connection of every zone.
    pub(super) async fn end_connections(&self) -> Result<(), StateError> {
        let keys: Vec<_> = self.shared.connections.0.read().keys().cloned().collect();
        for key in keys {
            self.end_connection(&key).await?;
        }
        Ok(())
    }

    /// Commits what `change` makes of the row, and shows it then. Without a change: the row as it is, and false; with
    /// no row, [`StateError::Behind`].
    async fn change_connection(
        &self,
        key: &ConnectionKey,
        mut change: impl FnMut(Option<&Connection>) -> Option<Connection>,
    ) -> Result<(Arc<Connection>, bool), StateError> {
        let mut again = Again::default();
        loop {
            let told = {
                let rows = self.shared.connections.0.write();
                let known = rows.get(key);
                let Some(row) = change(known.map(|known| &**known)) else {
                    return known.cloned().map(|known| (known, false)).ok_or(StateError::Behind);
                };
                let row = Arc::new(row);
                let (tell, told) = oneshot::channel();
                let (shared, shown): (Arc<Shared>, _) = (Arc::clone(&self.shared), Arc::clone(&row));
                let done = move |outcome: Result<(), StateError>| {
                    if outcome.is_ok() {
                        shared.connections.put(Arc::clone(&shown));
                    }
                    drop(tell.send(outcome.map(|()| shown)));
                };
                self.shared.queue.send(vec![Write::Connection(row)], Intent::Widen, Box::new(done));
                told
            };
            let outcome = told.await.unwrap_or(Err(StateError::Closed));
            if !again.should_store(&outcome) {
                // Two of this node's own changes may have been judged on one version; the later one came to nothing.
                return outcome.map(|row| {
                    let shown = self.connection(key).unwrap_or_else(|| Arc::clone(&row));
                    let ours = Arc::ptr_eq(&shown, &row);
                    (shown, ours)
                });
            }
        }
    }
}
