//! Fixtures shared by the tests of this crate.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::claims::{ChainHop, Claims, SubjectType, Use};
use crate::keys::{SigningKey, ZoneKeys};
use crate::verify::Expect;

pub(crate) const ISSUER: &str = "http://127.0.0.1:8080";
pub(crate) const ZONE: &str = "quickstart";
pub(crate) const NOW: i64 = 1_790_000_000;
pub(crate) const KID: &str = "01999a5b-0000-7000-8000-000000000001";

pub(crate) fn signing_key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(KID).unwrap())
}

pub(crate) fn zone_keys() -> ZoneKeys {
    ZoneKeys::new(signing_key(), []).unwrap()
}

/// A gateway mandate under a delegation, with every claim set.
pub(crate) fn full_claims() -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: "demo-agent".into(),
        aud: vec![ISSUER.into()],
        exp: NOW + 900,
        iat: NOW,
        jti: "01a0c450-6c00-700e-9a98-d418324ef292".into(),
        zone_id: ZONE.into(),
        client_id: "demo-agent".into(),
        scope: Some("echo:read echo:write".into()),
        sid: "r2".into(),
        root_sid: "r1".into(),
        target: vec!["resource://echo".into()],
        agent_session_id: Some("s2".into()),
        delegation_edge_id: Some("e1".into()),
        source_session_id: Some("s1".into()),
        target_session_id: Some("s2".into()),
        delegation_path: vec!["e1".into()],
        delegation_chain: vec![
            ChainHop {
                application_id: "demo-agent".into(),
                agent_session_id: Some("s1".into()),
                delegation_edge_id: Some("e1".into()),
            },
            ChainHop {
                application_id: "demo-agent".into(),
                agent_session_id: Some("s2".into()),
                delegation_edge_id: None,
            },
        ],
        hop_count: 1,
        delegation_graph_epoch: 7,
        epoch: Some("epoch-1".into()),
        reusable: true,
        ..Claims::empty(Use::Gateway, SubjectType::Application)
    }
}

/// The claims every mandate has, and nothing else.
pub(crate) fn bare_claims(use_: Use) -> Claims {
    let full = full_claims();
    Claims {
        iss: full.iss,
        sub: full.sub,
        aud: full.aud,
        exp: full.exp,
        iat: full.iat,
        jti: full.jti,
        zone_id: full.zone_id,
        client_id: full.client_id,
        sid: full.sid,
        root_sid: full.root_sid,
        ..Claims::empty(use_, SubjectType::Application)
    }
}

pub(crate) fn expect(uses: &[Use]) -> Expect<'_> {
    Expect { issuer: ISSUER, audience: ISSUER, zone: ZONE, uses, now: NOW + 10, leeway: 0 }
}

pub(crate) fn good_header() -> String {
    json!({"alg": "ES256", "typ": "JWT", "kid": KID}).to_string()
}

pub(crate) fn good_payload() -> String {
    serde_json::to_string(&full_claims()).unwrap()
}

/// The good payload with one claim replaced, or taken out with `None`.
pub(crate) fn payload_with(name: &str, value: Option<Value>) -> String {
    let mut payload = serde_json::to_value(full_claims()).unwrap();
    let object = payload.as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(name.into(), value),
        None => object.remove(name),
    };
    payload.to_string()
}

pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token over any header and payload, with a signature that verifies.
pub(crate) fn signed(key: &SigningKey, header: &str, payload: &str) -> String {
    signed_parts(key, &encoded(header), &encoded(payload))
}

/// A token over any two parts, with a signature that verifies.
pub(crate) fn signed_parts(key: &SigningKey, header: &str, payload: &str) -> String {
    let message = format!("{header}.{payload}");
    let encoding = EncodingKey::from_ec_der(key.pkcs8());
    let signature = crypto::sign(message.as_bytes(), &encoding, Algorithm::ES256).unwrap();
    format!("{message}.{signature}")
}
