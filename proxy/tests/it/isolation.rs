//! One zone's mandates are nothing in another zone, whatever the two zones have in common.

use caracal::serve::ServeOptions;

use crate::edge::{ECHO, Edge, Plan, ZONE};

/// Two zones with the same application, resource and grants; the second is at `/two`.
async fn two_zones() -> Edge {
    let config = "[zones.z2]\nprefixes = [\"/two\"]\nhosts = [\"two.test\"]".to_owned();
    let mut edge =
        Edge::prepared(Plan { config, provider: "kind = \"none\"".into(), ..Plan::default() }).await;
    let second = edge
        .bundle_text()
        .replace(&format!("id = \"{ZONE}\""), "id = \"z2\"")
        .replace("prefixes = [\"/echo\"]", "prefixes = [\"/two\"]")
        .replace("hosts = [\"echo.test\"]", "hosts = [\"two.test\"]");
    std::fs::write(edge.path("bundles/z2.toml"), second).unwrap();
    edge.boot(ServeOptions::default()).await.unwrap();
    edge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mandate_that_is_cached_for_one_zone_does_not_pass_on_a_route_of_another() {
    let edge = two_zones().await;
    let generation = |zone: &str| edge.running().app.keyring.zone(zone).unwrap().generation;
    assert_eq!(
        generation(ZONE),
        generation("z2"),
        "the numbers are alike, so they must not be all that counts"
    );
    let mandate = edge.mandate().await;
    let on_prefix = edge.http.get(format!("{}/two/read/a", edge.gateway())).bearer_auth(&mandate);
    assert_eq!(on_prefix.send().await.unwrap().status(), 401);
    let on_host =
        edge.http.get(format!("{}/read/a", edge.gateway())).header("host", "two.test").bearer_auth(&mandate);
    assert_eq!(on_host.send().await.unwrap().status(), 401);
    let named = edge
        .http
        .get(format!("{}/read/a", edge.gateway()))
        .header("host", "two.test")
        .header("x-caracal-resource", ECHO)
        .bearer_auth(&mandate);
    assert_eq!(named.send().await.unwrap().status(), 400, "header and host name resources of two zones");
    assert_eq!(edge.upstream.count(), 0);
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200, "and it was not burnt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_and_freezing_end_at_the_border_of_the_zone() {
    let edge = two_zones().await;
    let mandate = edge.mandate().await;
    edge.running().app.state.freeze("z2").await.unwrap();
    assert_eq!(edge.get("/read/a", &mandate).send().await.unwrap().status(), 200);
    let second = edge.mandate().await;
    edge.running().app.state.freeze(ZONE).await.unwrap();
    assert_eq!(edge.get("/read/a", &second).send().await.unwrap().status(), 403);
}
