use serde_json::json;

use super::*;
use crate::keys::{SigningKey, ZoneKeys};
use crate::testing::{KID, NOW, full_claims, good_header, signed};

const RESOURCE: &str = "resource://echo";

struct Bench {
    key: Arc<SigningKey>,
    keys: ZoneKeys,
    store: Arc<MemoryRevocations>,
    settings: Settings,
}

impl Bench {
    fn new() -> Self {
        let key = Arc::new(SigningKey::generate(KID).unwrap());
        Self {
            keys: ZoneKeys::new(Arc::clone(&key), []).unwrap(),
            key,
            store: Arc::new(MemoryRevocations::default()),
            settings: Settings::new("http://127.0.0.1:8080", RESOURCE, "quickstart"),
        }
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut bench = Self::new();
        change(&mut bench.settings);
        bench
    }

    fn verifier(&self) -> Verifier {
        let store: Arc<dyn Revocations> = Arc::<MemoryRevocations>::clone(&self.store);
        Verifier::new(self.settings.clone(), store)
    }

    /// The verdict on the good resource mandate after some changes to its claims.
    fn outcome(&self, changes: &[(&str, Value)]) -> Result<VerifiedMandate, Refused> {
        self.verifier().verify(self.keys.public(), &self.token(changes), NOW + 10)
    }

    fn token(&self, changes: &[(&str, Value)]) -> String {
        let claims = Claims { use_: Use::Resource, aud: vec![RESOURCE.into()], ..full_claims() };
        let mut payload = serde_json::to_value(claims).unwrap();
        for (name, value) in changes {
            payload[*name] = value.clone();
        }
        signed(&self.key, &good_header(), &payload.to_string())
    }

    fn code(&self, changes: &[(&str, Value)]) -> &'static str {
        self.outcome(changes).map_or_else(|refused| refused.code(), |_| "ok")
    }
}

#[test]
fn a_good_resource_mandate_passes() {
    let mandate = Bench::new().outcome(&[]).unwrap();
    assert_eq!(mandate.claims().use_, Use::Resource);
}

#[test]
fn each_step_refuses_with_its_code() {
    let bench = Bench::new();
    let cases: [(&str, Value, &str); 27] = [
        ("iss", json!("http://127.0.0.1:8081"), "invalid_token"),
        ("aud", json!(["resource://other"]), "invalid_token"),
        ("aud", json!(RESOURCE), "ok"),
        ("exp", json!(NOW - 51), "invalid_token"),
        ("iat", json!(NOW + 71), "invalid_token"),
        ("exp", json!(null), "invalid_token"),
        ("iat", json!(null), "invalid_token"),
        ("zone_id", json!("other"), "zone_invalid"),
        ("jti", json!(""), "invalid_token"),
        ("sub", json!(null), "invalid_token"),
        ("sid", json!(1), "invalid_token"),
        ("root_sid", json!(""), "invalid_token"),
        ("client_id", json!(""), "invalid_token"),
        ("use", json!("gateway"), "invalid_token"),
        ("use", json!("session"), "invalid_token"),
        ("use", json!("admin"), "invalid_token"),
        ("sub_type", json!("robot"), "invalid_token"),
        ("agent_session_id", json!(7), "invalid_token"),
        ("delegation_path", json!(["a", 1]), "invalid_token"),
        ("delegation_chain", json!([{"agent_session_id": "s"}]), "invalid_token"),
        ("hop_count", json!(-1), "invalid_token"),
        ("hop_count", json!(10), "ok"),
        ("hop_count", json!(11), "hop_count_exceeded"),
        ("delegation_graph_epoch", json!("7"), "invalid_token"),
        ("scope", json!(null), "ok"),
        ("target", json!(null), "ok"),
        ("agent_session_id", json!(null), "ok"),
    ];
    for (name, value, code) in cases {
        assert_eq!(bench.code(&[(name, value.clone())]), code, "{name}: {value}");
    }
}

#[test]
fn expiry_and_clock_have_a_minute_of_leeway() {
    let bench = Bench::new();
    let at = |now| bench.verifier().verify(bench.keys.public(), &bench.token(&[]), now).is_ok();
    assert_eq!([at(NOW + 959), at(NOW + 960), at(NOW - 60), at(NOW - 61)], [true, false, true, false]);
}

#[test]
fn the_first_failing_step_gives_the_code() {
    let strict = Bench::with(|settings| {
        settings.required_scopes = vec!["admin".into()];
        settings.required_targets = vec!["resource://admin".into()];
        settings.session = Need::Required;
        settings.delegation = Need::Required;
        settings.required_chain = vec!["auditor".into()];
    });
    strict.store.revoke("r1", NOW * 1_000).unwrap();
    let mut repairs = vec![
        ("iss", json!("x"), json!("http://127.0.0.1:8080"), "invalid_token"),
        ("zone_id", json!("x"), json!("quickstart"), "zone_invalid"),
        ("jti", json!(""), json!("j"), "invalid_token"),
        ("use", json!("gateway"), json!("resource"), "invalid_token"),
        ("sub_type", json!("x"), json!("user"), "invalid_token"),
        ("scope", json!("adminx xadmin"), json!("x admin"), "scope_insufficient"),
        ("target", json!(["resource://echo"]), json!(["resource://admin"]), "invalid_token"),
        ("source_session_id", json!(1), json!("s1"), "invalid_token"),
        ("agent_session_id", json!(null), json!("s2"), "session_required"),
        ("delegation_edge_id", json!(null), json!("e1"), "delegation_required"),
        ("hop_count", json!(11), json!(1), "hop_count_exceeded"),
        (
            "delegation_chain",
            json!([{"application_id": "a"}]),
            json!([{"application_id": "auditor"}]),
            "chain_mismatch",
        ),
        ("root_sid", json!("r1"), json!("r9"), "session_revoked"),
    ];
    let mut changes: Vec<(&str, Value)> =
        repairs.iter().map(|(name, broken, ..)| (*name, broken.clone())).collect();
    for (at, (name, _, repaired, code)) in repairs.drain(..).enumerate() {
        assert_eq!(strict.code(&changes), code, "with {name} and all after it broken");
        changes[at].1 = repaired;
    }
    assert_eq!(strict.code(&changes), "ok");
}

#[test]
fn a_session_mandate_passes_only_when_asked_for_and_a_gateway_mandate_never() {
    for required in [None, Some(Use::Session), Some(Use::Gateway)] {
        let bench = Bench::with(|settings| settings.required_use = required);
        let session = if required == Some(Use::Gateway) { "invalid_token" } else { "ok" };
        assert_eq!(bench.code(&[("use", json!("session"))]), session, "{required:?}");
        assert_eq!(bench.code(&[("use", json!("gateway"))]), "invalid_token", "{required:?}");
    }
}

#[test]
fn configuration_that_lets_others_choose_the_keys_refuses_everything() {
    assert_eq!(Bench::with(|settings| settings.zone.clear()).code(&[]), "zone_invalid");
    let exposed = "http://authority.example";
    let bench = Bench::with(|settings| settings.issuer = exposed.into());
    assert_eq!(bench.code(&[("iss", json!(exposed))]), "invalid_token");
    let told = Bench::with(|settings| {
        settings.issuer = exposed.into();
        settings.transport = Transport::AnyHttp;
    });
    assert_eq!(told.code(&[("iss", json!(exposed))]), "ok");
}

#[test]
fn zero_hops_means_the_default() {
    let bench = Bench::with(|settings| settings.max_hop_count = 0);
    assert_eq!(bench.code(&[("hop_count", json!(10))]), "ok");
    let bench = Bench::with(|settings| settings.max_hop_count = 2);
    assert_eq!(bench.code(&[("hop_count", json!(3))]), "hop_count_exceeded");
}

#[test]
fn every_anchor_revokes() {
    for anchor in ["r2", "r1", "s2", "e1"] {
        let bench = Bench::new();
        let mandate = bench.outcome(&[]).unwrap();
        bench.store.revoke(anchor, NOW * 1_000).unwrap();
        assert_eq!(bench.code(&[]), "session_revoked", "{anchor}");
        let again = bench.verifier().recheck(&mandate, NOW + 20);
        assert_eq!(again, Err(Refused::SessionRevoked), "{anchor}");
    }
    let bench = Bench::new();
    for other in ["s1", "resource://echo", "demo-agent", "quickstart"] {
        bench.store.revoke(other, NOW * 1_000).unwrap();
    }
    assert_eq!(bench.code(&[]), "ok", "source session, target and application are no anchors");
}

#[test]
fn a_raised_epoch_makes_older_delegations_stale() {
    let bench = Bench::new();
    bench.store.raise_epoch("other", 100);
    assert_eq!(bench.code(&[]), "ok");
    bench.store.raise_epoch("quickstart", 7);
    assert_eq!(bench.code(&[]), "ok");
    bench.store.raise_epoch("quickstart", 8);
    assert_eq!(bench.code(&[]), "delegation_stale");
    assert_eq!(bench.code(&[("delegation_graph_epoch", json!(null))]), "ok", "no delegation, no epoch");
    assert_eq!(bench.code(&[("delegation_graph_epoch", json!(8))]), "ok");
}

#[test]
fn a_recheck_has_no_leeway() {
    let bench = Bench::new();
    let mandate = bench.outcome(&[]).unwrap();
    bench.verifier().recheck(&mandate, NOW + 899).unwrap();
    let late = bench.verifier().recheck(&mandate, NOW + 900).unwrap_err();
    assert_eq!(late.code(), "invalid_token");
}

#[derive(Debug)]
struct Broken;

impl Revocations for Broken {
    fn is_revoked(&self, anchor: &str, _now: i64) -> Result<bool, StoreFailed> {
        if anchor == "r2" { Err(StoreFailed) } else { Ok(false) }
    }

    fn delegation_epoch(&self, _zone: &str) -> Result<Option<u64>, StoreFailed> {
        Err(StoreFailed)
    }
}

#[test]
fn a_store_that_cannot_say_refuses() {
    let bench = Bench::new();
    let verifier = Verifier::new(bench.settings.clone(), Arc::new(Broken));
    let code = |changes: &[(&str, Value)]| {
        verifier
            .verify(bench.keys.public(), &bench.token(changes), NOW)
            .map_or_else(|refused| refused.code(), |_| "ok")
    };
    assert_eq!(code(&[]), "session_revoked");
    assert_eq!(code(&[("sid", json!("r3"))]), "delegation_stale");
    assert_eq!(code(&[("sid", json!("r3")), ("delegation_graph_epoch", json!(0))]), "ok");
}

#[test]
fn a_bearer_is_taken_out_of_its_header() {
    assert_eq!(bearer(Some("Bearer a.b.c")), Ok("a.b.c"));
    assert_eq!(bearer(Some("bEARER   a.b.c")), Ok("a.b.c"));
    for wrong in
        [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic a"), Some("a.b.c"), Some("Bearera b")]
    {
        assert_eq!(bearer(wrong), Err(Refused::MissingToken), "{wrong:?}");
    }
}

#[test]
fn every_code_has_its_http_form() {
    let table = [
        (Refused::MissingToken, "missing_token", 401),
        (Refused::InvalidToken("x"), "invalid_token", 401),
        (Refused::ZoneInvalid, "invalid_zone", 401),
        (Refused::SessionRevoked, "session_revoked", 401),
        (Refused::DelegationStale, "delegation_stale", 401),
        (Refused::ScopeInsufficient, "insufficient_scope", 403),
        (Refused::SessionRequired, "session_required", 403),
        (Refused::DelegationRequired, "delegation_required", 403),
        (Refused::ChainMismatch, "chain_mismatch", 403),
        (Refused::HopCountExceeded, "hop_count_exceeded", 403),
    ];
    for (refused, code, status) in table {
        assert_eq!((refused.http_code(), refused.http_status()), (code, status));
    }
}
