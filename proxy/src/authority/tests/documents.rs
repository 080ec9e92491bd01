use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::authority::testkit::{ISSUER, Kit};

#[tokio::test]
async fn a_zones_keys_are_public_and_cacheable() {
    let kit = Kit::new().await;
    let reply = kit.get("/.well-known/jwks.json?zone_id=z1").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.headers["cache-control"], "public, max-age=300, must-revalidate");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    let keys = reply.json["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    let names: Vec<&String> = keys[0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!((&keys[0]["kty"], &keys[0]["alg"]), (&json!("EC"), &json!("ES256")));

    let tag = reply.headers["etag"].to_str().unwrap();
    for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let request = Request::get("/.well-known/jwks.json?zone_id=z1").header("if-none-match", known);
        let unchanged = Kit::send(&kit.authority, request.body(Body::empty()).unwrap()).await;
        assert_eq!(unchanged.status, 304);
        assert_eq!(unchanged.headers["etag"], tag);
    }
}

#[tokio::test]
async fn keys_need_a_zone_that_exists() {
    let kit = Kit::new().await;
    for uri in ["", "?zone_id=", "?zone_id=a/b", "?zone_id=z1&zone_id=z1", "?zone=z1"] {
        let reply = kit.get(&format!("/.well-known/jwks.json{uri}")).await;
        assert_eq!(reply.told(), (400, "invalid_token"), "{uri}");
    }
    let unknown = kit.get("/.well-known/jwks.json?zone_id=z9").await;
    assert_eq!(unknown.told(), (404, "resource_not_found"));
}

#[tokio::test]
async fn the_metadata_document_describes_the_token_endpoint() {
    let kit = Kit::new().await;
    let reply = kit.get("/.well-known/oauth-authorization-server?zone_id=z1").await;
    assert_eq!(
        reply.json,
        json!({
            "issuer": ISSUER,
            "token_endpoint": "http://127.0.0.1:8080/oauth/2/token",
            "jwks_uri": "http://127.0.0.1:8080/.well-known/jwks.json?zone_id=z1",
            "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "scopes_supported": ["agent:lifecycle"],
        })
    );
    let of_several = kit.get("/.well-known/oauth-authorization-server").await;
    assert!(of_several.json.get("jwks_uri").is_none());
}

#[tokio::test]
async fn health_and_unknown_paths_and_methods() {
    let kit = Kit::new().await;
    assert_eq!(kit.get("/health").await.status, 200);
    let ready = kit.get("/ready").await;
    assert_eq!((ready.status, ready.json), (200, json!({ "ok": true, "ready": true })));
    assert_eq!(kit.get("/oauth/2/other").await.told(), (404, "not_found"));
    let wrong = kit.get("/oauth/2/token").await;
    assert_eq!(wrong.told(), (405, "method_not_allowed"));
    assert_eq!(wrong.headers["allow"], "POST");
    let request = Request::post("/.well-known/jwks.json").body(Body::empty()).unwrap();
    assert_eq!(Kit::send(&kit.authority, request).await.headers["allow"], "GET,HEAD");
}
