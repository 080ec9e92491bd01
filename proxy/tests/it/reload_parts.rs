//! A bundle of many documents of which one changes again and again, under load: what did not change is kept, and still
//! every request is decided and sent by one generation alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::edge::{Agent, ECHO, Edge, Plan, ZONE};
use crate::reload::load;

const ROUNDS: usize = 60;
/// Documents that stay as they are, and resources in each.
const DOCUMENTS: usize = 20;
const RESOURCES: usize = 25;

/// Puts a folder of documents in the place of the bundle's one file.
fn spread(edge: &Edge) {
    let folder = edge.path(&format!("bundles/{ZONE}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::remove_file(edge.bundle()).unwrap();
    let names: Vec<_> = (0..DOCUMENTS).map(|number| format!("\"d{number}.toml\"")).collect();
    let listed = format!("name = \"Zone one\"\ndocuments = [\"changing.toml\", {}]", names.join(", "));
    let head = edge.bundle_text().replace("name = \"Zone one\"", &listed);
    let (above, _, below) = parts(&head);
    std::fs::write(folder.join("zone.toml"), above + &below).unwrap();
    for number in 0..DOCUMENTS {
        let resources = (0..RESOURCES).map(|inner| {
            format!(
                "[[resources]]\nidentifier = \"resource://r{number}-{inner}\"\nupstream_url = \"{}\"\n\
                 scopes = [\"a\", \"b\"]\ncredential_provider = \"provider://echo\"\n\
                 [grants.\"resource://r{number}-{inner}\"]\napplication = \"one\"\nroles = {{ x = [\"a\"] }}\n",
                edge.upstream.url()
            )
        });
        let text = "schema = 1\n".to_owned() + &resources.collect::<String>();
        std::fs::write(folder.join(format!("d{number}.toml")), text).unwrap();
    }
    change(edge, 0);
}

/// What stands before provider and resource, these, and what stands behind.
fn parts(bundle: &str) -> (String, String, String) {
    let (above, rest) = bundle.split_once("[[providers]]").unwrap();
    let (part, below) = rest.split_once("[app_ids]").unwrap();
    (above.to_owned(), format!("[[providers]]{part}"), format!("[app_ids]{below}"))
}

/// The one document that changes: the path and the header of a generation belong together.
fn change(edge: &Edge, generation: usize) {
    let whole = edge.bundle_text();
    let (_, part, _) = parts(&whole);
    let url = edge.upstream.url();
    let part = part
        .replace("X-Api-Key", &format!("X-Key-{}", generation % 2))
        .replace(&format!("\"{url}\""), &format!("\"{url}/g{}\"", generation % 2));
    let fresh = edge.path("fresh");
    std::fs::write(&fresh, format!("schema = 1\n# {generation}\n{part}")).unwrap();
    std::fs::rename(fresh, edge.path(&format!("bundles/{ZONE}/changing.toml"))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_document_of_many_changes_under_load_and_no_request_fails_or_sees_two_generations() {
    let mut edge = Edge::prepared(Plan::default()).await;
    spread(&edge);
    edge.boot(Default::default()).await.unwrap();
    let edge = Arc::new(edge);
    let stop = Arc::new(AtomicBool::new(false));
    let (tasks, calls) = load(&edge, &stop).await;
    let agent = Agent::provision(&edge, &["echo:read"]).await;
    let reloader = &edge.running().app.reloader;
    for round in 1..=ROUNDS {
        change(&edge, round);
        let before = reloader.snapshot().load().zones[ZONE].clone();
        reloader.reload().await;
        let now = reloader.snapshot().load().zones[ZONE].clone();
        let mandate = agent.mint(&edge, &["echo:read"]).await;
        let path = format!("/read/probe-{round}");
        assert_eq!(edge.get(&path, &mandate).send().await.unwrap().status(), 200);
        let seen = edge.upstream.seen();
        let probe = seen.iter().rev().find(|seen| seen.line().contains(&path)).unwrap();
        assert!(
            probe.line().contains(&format!("/g{}/", round % 2)),
            "the next request uses it: {}",
            probe.line()
        );
        let same = |name: &str| {
            let (old, new) = (before.zone.resource(name).unwrap(), now.zone.resource(name).unwrap());
            (
                old.upstream.base_path == new.upstream.base_path,
                Arc::ptr_eq(&before.chains[name], &now.chains[name]),
            )
        };
        // The watch may have taken a change in before it was asked for.
        let taken = Arc::ptr_eq(&before, &now);
        assert_eq!(same(ECHO), (taken, taken));
        // Its provider changed, so it is another resource, of the document that was read once.
        assert_eq!(same("resource://r0-0"), (true, taken));
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
    for seen in edge.upstream.seen() {
        let generation = if seen.line().contains("/g0/") { 0 } else { 1 };
        let (own, other) = (format!("x-key-{generation}"), format!("x-key-{}", 1 - generation));
        assert_eq!(seen.header(&own).len(), 1, "{}", seen.line());
        assert!(seen.header(&other).is_empty(), "the credential of another generation: {}", seen.line());
    }
    assert!(edge.running().app.reloader.standing().bundles_rejected.is_empty());
}
