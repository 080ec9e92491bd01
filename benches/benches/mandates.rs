//! Minting, reading and verifying a mandate, without the process around it.

use std::hint::black_box;
use std::sync::Arc;

use caracal_benches as _;
use caracal_mandates::{
    ChainHop, Claims, Expect, SigningKey, SubjectType, Use, ZoneKeys, digest, new_jti, peek, verify,
};
use criterion::{Criterion, criterion_group, criterion_main};

const ISSUER: &str = "http://127.0.0.1:8080";
const NOW_S: i64 = 1_790_000_000;

/// The claims of a gateway mandate under one delegation, as the token endpoint makes them.
fn claims() -> Claims {
    let id = || new_jti(NOW_S.saturating_mul(1_000));
    let (record, session, delegation) = (id(), id(), id());
    Claims {
        iss: ISSUER.into(),
        sub: "agent".into(),
        aud: vec![ISSUER.into()],
        exp: NOW_S.saturating_add(900),
        iat: NOW_S,
        jti: id(),
        zone_id: "bench".into(),
        client_id: "agent".into(),
        scope: Some("s0".into()),
        sid: record.clone(),
        root_sid: record,
        target: vec!["resource://r0".into()],
        agent_session_id: Some(session.clone()),
        delegation_edge_id: Some(delegation.clone()),
        source_session_id: Some(id()),
        target_session_id: Some(session.clone()),
        delegation_path: vec![delegation.clone()],
        delegation_chain: vec![
            ChainHop {
                application_id: "agent".into(),
                agent_session_id: Some(id()),
                delegation_edge_id: Some(delegation),
            },
            ChainHop {
                application_id: "agent".into(),
                agent_session_id: Some(session),
                delegation_edge_id: None,
            },
        ],
        hop_count: 1,
        epoch: Some("0123456789abcdef0123456789abcdef".into()),
        ..Claims::empty(Use::Gateway, SubjectType::Application)
    }
}

fn mandate(criterion: &mut Criterion) {
    let keys = SigningKey::generate("bench").ok().and_then(|key| ZoneKeys::new(Arc::new(key), []).ok());
    let minted = keys.as_ref().and_then(|keys| keys.mint(claims()).ok());
    let (Some(keys), Some(minted)) = (keys, minted) else {
        assert!(black_box(false), "no key, or it does not sign");
        return;
    };
    let token = minted.token.as_str();
    let expect = Expect {
        issuer: ISSUER,
        audience: ISSUER,
        zone: "bench",
        uses: &[Use::Gateway],
        now: NOW_S,
        leeway: 0,
    };
    assert!(verify(keys.public(), token, &expect).is_ok(), "the mandate verifies");
    assert!(peek(token).is_ok_and(|peeked| peeked.client_id.as_deref() == Some("agent")), "it can be read");
    let mut group = criterion.benchmark_group("mandate");
    let template = claims();
    group.bench_function("mint", |bencher| bencher.iter(|| keys.mint(black_box(template.clone()))));
    group.bench_function("peek", |bencher| bencher.iter(|| peek(black_box(token))));
    group.bench_function("digest", |bencher| bencher.iter(|| digest(black_box(token))));
    group.bench_function("verify_es256", |bencher| {
        bencher.iter(|| verify(keys.public(), black_box(token), &expect))
    });
    group.finish();
}

criterion_group!(benches, mandate);
criterion_main!(benches);
