//! One zone's keys and their lives; pure, times are arguments in unix milliseconds.

use std::sync::Arc;

use caracal_mandates::{KeyError, PublicKey, SigningKey, ZoneKeys};

use super::{KEEP_PREVIOUS_MS, KeyInfo, KeyState, KeyringError, PUBLISH_BEFORE_SIGN_MS};

/// Exactly one key signs; at most one is next; the lists have the newest first.
#[derive(Clone)]
pub(super) struct Ring {
    pub(super) signing: Held,
    pub(super) next: Option<Next>,
    pub(super) previous: Vec<Previous>,
    pub(super) revoked: Vec<Revoked>,
}

#[derive(Clone)]
pub(super) struct Held {
    pub(super) key: Arc<SigningKey>,
    pub(super) created_at: i64,
}

#[derive(Clone)]
pub(super) struct Next {
    pub(super) held: Held,
    pub(super) signs_at: i64,
}

/// Its private half is gone: nothing will be signed with it.
#[derive(Clone)]
pub(super) struct Previous {
    pub(super) public: PublicKey,
    pub(super) created_at: i64,
    pub(super) until: i64,
}

/// Only a name, kept so that an operator sees what happened.
#[derive(Clone)]
pub(super) struct Revoked {
    pub(super) kid: Arc<str>,
    pub(super) created_at: i64,
    pub(super) at: i64,
}

/// A published key and the moment it takes over.
pub(super) struct Pending {
    pub(super) kid: Arc<str>,
    pub(super) signs_at: i64,
}

impl Ring {
    pub(super) const fn new(key: Arc<SigningKey>, now: i64) -> Self {
        let signing = Held { key, created_at: now };
        Self { signing, next: None, previous: Vec::new(), revoked: Vec::new() }
    }

    pub(super) fn next(&self) -> Option<Pending> {
        self.next.as_ref().map(|next| Pending { kid: next.held.kid(), signs_at: next.signs_at })
    }

    /// Publishes a key; it takes the place of one that was next.
    pub(super) fn publish(&mut self, key: Arc<SigningKey>, now: i64) -> Pending {
        let signs_at = now.saturating_add(PUBLISH_BEFORE_SIGN_MS);
        let pending = Pending { kid: Arc::clone(key.public().kid()), signs_at };
        self.next = Some(Next { held: Held { key, created_at: now }, signs_at });
        pending
    }

    /// Does what is due; whether anything was.
    pub(super) fn settle(&mut self, now: i64) -> bool {
        let before = (self.previous.len(), self.revoked.len());
        self.previous.retain(|key| key.until > now);
        self.revoked.retain(|key| key.at.saturating_add(KEEP_PREVIOUS_MS) > now);
        let dropped = before != (self.previous.len(), self.revoked.len());
        let Some(next) = self.next.take_if(|next| next.signs_at <= now) else { return dropped };
        let stopped = std::mem::replace(&mut self.signing, next.held);
        let until = now.saturating_add(KEEP_PREVIOUS_MS);
        let public = stopped.key.public().clone();
        self.previous.insert(0, Previous { public, created_at: stopped.created_at, until });
        true
    }

    /// Takes a key out; `spare` makes one when nothing else can sign. False when it was out already.
    pub(super) fn revoke(
        &mut self,
        kid: &str,
        now: i64,
        spare: impl FnOnce() -> Result<Arc<SigningKey>, KeyringError>,
    ) -> Result<bool, KeyringError> {
        if self.revoked.iter().any(|key| &*key.kid == kid) {
            return Ok(false);
        }
        if &*self.signing.kid() == kid {
            let successor = match self.next.take() {
                Some(next) => next.held,
                None => Held { key: spare()?, created_at: now },
            };
            let gone = std::mem::replace(&mut self.signing, successor);
            self.note_revoked(gone.kid(), gone.created_at, now);
        } else if let Some(gone) = self.next.take_if(|next| &*next.held.kid() == kid) {
            self.note_revoked(gone.held.kid(), gone.held.created_at, now);
        } else {
            let found = self.previous.iter().position(|key| &**key.public.kid() == kid);
            let gone = self.previous.remove(found.ok_or(KeyringError::UnknownKey)?);
            self.note_revoked(Arc::clone(gone.public.kid()), gone.created_at, now);
        }
        Ok(true)
    }

    /// Revokes everything and signs with this key.
    pub(super) fn replace(&mut self, key: Arc<SigningKey>, now: i64) {
        for gone in std::mem::take(&mut self.previous).into_iter().rev() {
            self.note_revoked(Arc::clone(gone.public.kid()), gone.created_at, now);
        }
        let signing = std::mem::replace(&mut self.signing, Held { key, created_at: now });
        self.note_revoked(signing.kid(), signing.created_at, now);
        if let Some(gone) = self.next.take() {
            self.note_revoked(gone.held.kid(), gone.held.created_at, now);
        }
    }

    /// What readers see: the signing key first, then the next, then the previous ones.
    pub(super) fn zone_keys(&self) -> Result<ZoneKeys, KeyError> {
        let next = self.next.iter().map(|next| next.held.key.public().clone());
        let previous = self.previous.iter().map(|key| key.public.clone());
        ZoneKeys::new(Arc::clone(&self.signing.key), next.chain(previous))
    }

    pub(super) fn list(&self, zone: &Arc<str>) -> Vec<KeyInfo> {
        let info =
            |kid: Arc<str>, created_at, state| KeyInfo { zone: Arc::clone(zone), kid, created_at, state };
        let next = self.next.iter().map(|next| {
            info(next.held.kid(), next.held.created_at, KeyState::Next { signs_at: next.signs_at })
        });
        let signing = info(self.signing.kid(), self.signing.created_at, KeyState::Signing);
        let previous = self.previous.iter().map(|key| {
            info(Arc::clone(key.public.kid()), key.created_at, KeyState::Previous { until: key.until })
        });
        let revoked = self
            .revoked
            .iter()
            .map(|key| info(Arc::clone(&key.kid), key.created_at, KeyState::Revoked { at: key.at }));
        next.chain([signing]).chain(previous).chain(revoked).collect()
    }

    fn note_revoked(&mut self, kid: Arc<str>, created_at: i64, at: i64) {
        self.revoked.insert(0, Revoked { kid, created_at, at });
    }
}

impl Held {
    pub(super) fn kid(&self) -> Arc<str> {
        Arc::clone(self.key.public().kid())
    }
}
