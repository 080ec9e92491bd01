//! The signed proof: mint and verify mandates, zone keys and their JWKS, the sealed envelope for key files.
//!
//! A *mandate* is a compact JWS (RFC 7515 section 3.1) signed with ES256 that says which application may do
//! what, where and until when. This crate turns a token into a [`VerifiedMandate`], which nothing else can make,
//! and a zone's [`ZoneKeys`] into tokens. It does no I/O and reads no clock: times are arguments.
//!
//! Start reading at [`verify()`]; [`peek`] holds everything that is refused before any curve arithmetic.
//!
//! ```
//! use std::sync::Arc;
//! use caracal_mandates::{Claims, Expect, SigningKey, SubjectType, Use, ZoneKeys, new_jti, verify};
//!
//! let key = SigningKey::generate(&new_jti(1_790_000_000_000))?;
//! let keys = ZoneKeys::new(Arc::new(key), [])?;
//! let claims = Claims {
//!     iss: "http://127.0.0.1:8080".into(),
//!     sub: "demo-agent".into(),
//!     aud: vec!["http://127.0.0.1:8080".into()],
//!     exp: 1_790_000_900,
//!     iat: 1_790_000_000,
//!     jti: new_jti(1_790_000_000_000),
//!     zone_id: "quickstart".into(),
//!     client_id: "demo-agent".into(),
//!     sid: "r1".into(),
//!     root_sid: "r1".into(),
//!     ..Claims::empty(Use::Gateway, SubjectType::Application)
//! };
//! let minted = keys.mint(claims)?;
//! let expect = Expect {
//!     issuer: "http://127.0.0.1:8080",
//!     audience: "http://127.0.0.1:8080",
//!     zone: "quickstart",
//!     uses: &[Use::Gateway],
//!     now: 1_790_000_010,
//!     leeway: 0,
//! };
//! let mandate = verify(keys.public(), &minted.token, &expect)?;
//! assert_eq!(mandate.claims().sub, "demo-agent");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claims;
mod compact;
mod jti;
mod jwks;
mod keys;
mod mandate;
mod stream_key;
mod strict_json;
mod verify;

pub mod css1;
pub mod resource_server;
#[cfg(feature = "tower")]
pub mod tower;

pub use claims::{ChainHop, Claims, SubjectType, Use};
pub use compact::{MAX_TOKEN_BYTES, Malformed, Peek, peek};
pub use jti::{jti_millis, new_jti};
pub use jwks::{JwksError, MAX_JWKS_BYTES};
pub use keys::{KeyError, KeySet, PublicKey, SignError, SigningKey, ZoneKeys};
pub use mandate::{Minted, VerifiedMandate, digest};
pub use stream_key::{SIGNATURE_FIELD, StreamKey};
pub use strict_json::{object as json_object, value as json_value};
pub use verify::{Expect, Invalid, MAX_ISSUED_AHEAD_S, verify};

#[cfg(test)]
mod testing;
