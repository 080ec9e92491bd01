//! A zone's key file: its JSON, and what it takes to believe it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use caracal_mandates::css1::{OpenError, ZONE_SIGNING_KEY};
use caracal_mandates::{PublicKey, SigningKey};
use serde::{Deserialize, Serialize};

use super::ring::{Held, Next, Previous, Revoked, Ring};
use crate::sealing::SealingKey;

/// The file. Times are unix milliseconds; a private key is PKCS#8 in a sealed envelope, base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    schema: u32,
    zone: String,
    signing: HeldRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<NextRecord>,
    #[serde(default)]
    previous: Vec<PreviousRecord>,
    #[serde(default)]
    revoked: Vec<RevokedRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldRecord {
    public: PublicRecord,
    created_at: i64,
    sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextRecord {
    key: HeldRecord,
    signs_at: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousRecord {
    public: PublicRecord,
    created_at: i64,
    until: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedRecord {
    kid: Arc<str>,
    created_at: i64,
    at: i64,
}

/// Coordinates as in a JWK: 32 bytes each, base64url.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicRecord {
    kid: String,
    x: String,
    y: String,
}

/// Why a file is not believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Sealed with another sealing key.
    OtherSealingKey,
    /// Not what this process writes.
    Damaged(&'static str),
}

impl Record {
    /// `None` when the sealing fails.
    pub(super) fn of(ring: &Ring, zone: &str, sealing: &SealingKey) -> Option<Self> {
        let next = match &ring.next {
            Some(next) => {
                Some(NextRecord { key: HeldRecord::of(&next.held, sealing)?, signs_at: next.signs_at })
            }
            None => None,
        };
        let previous = ring.previous.iter().map(|key| PreviousRecord {
            public: PublicRecord::of(&key.public),
            created_at: key.created_at,
            until: key.until,
        });
        let revoked = ring.revoked.iter().map(|key| RevokedRecord {
            kid: Arc::clone(&key.kid),
            created_at: key.created_at,
            at: key.at,
        });
        Some(Self {
            schema: 1,
            zone: zone.to_owned(),
            signing: HeldRecord::of(&ring.signing, sealing)?,
            next,
            previous: previous.collect(),
            revoked: revoked.collect(),
        })
    }

    /// The ring this file holds, every key opened and compared with its public half.
    pub(super) fn ring(self, zone: &str, sealing: &SealingKey) -> Result<Ring, Unreadable> {
        if self.schema != 1 {
            return Err(Unreadable::Damaged("its schema is not 1"));
        }
        if self.zone != zone {
            return Err(Unreadable::Damaged("it belongs to another zone"));
        }
        let signing = self.signing.held(sealing)?;
        let next = match self.next {
            Some(next) => Some(Next { held: next.key.held(sealing)?, signs_at: next.signs_at }),
            None => None,
        };
        let mut previous = Vec::new();
        for key in self.previous {
            let public = key.public.key()?;
            previous.push(Previous { public, created_at: key.created_at, until: key.until });
        }
        let revoked = self
            .revoked
            .into_iter()
            .map(|key| Revoked { kid: key.kid, created_at: key.created_at, at: key.at })
            .collect();
        Ok(Ring { signing, next, previous, revoked })
    }
}

impl HeldRecord {
    fn of(held: &Held, sealing: &SealingKey) -> Option<Self> {
        let sealed = sealing.seal(ZONE_SIGNING_KEY, held.key.pkcs8()).ok()?;
        let public = PublicRecord::of(held.key.public());
        Some(Self { public, created_at: held.created_at, sealed: STANDARD.encode(sealed) })
    }

    fn held(self, sealing: &SealingKey) -> Result<Held, Unreadable> {
        let damaged = || Unreadable::Damaged("a private key does not open");
        let envelope = STANDARD.decode(&self.sealed).ok().ok_or_else(damaged)?;
        let pkcs8 = sealing.open(ZONE_SIGNING_KEY, &envelope).map_err(|error| match error {
            OpenError::OtherKey => Unreadable::OtherSealingKey,
            OpenError::NotAnEnvelope | OpenError::Damaged => damaged(),
        })?;
        let key = SigningKey::from_pkcs8(&self.public.kid, &pkcs8).ok().ok_or_else(damaged)?;
        if key.public().coordinates() != self.public.key()?.coordinates() {
            return Err(Unreadable::Damaged("a public key is not that of its private key"));
        }
        Ok(Held { key: Arc::new(key), created_at: self.created_at })
    }
}

impl PublicRecord {
    fn of(key: &PublicKey) -> Self {
        let (x, y) = key.coordinates();
        Self { kid: (**key.kid()).to_owned(), x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y) }
    }

    fn key(&self) -> Result<PublicKey, Unreadable> {
        let damaged = || Unreadable::Damaged("a public key is no point of P-256");
        let coordinate = |text: &str| <[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let x = coordinate(&self.x).ok_or_else(damaged)?;
        let y = coordinate(&self.y).ok_or_else(damaged)?;
        PublicKey::from_coordinates(&self.kid, x, y).ok().ok_or_else(damaged)
    }
}
