//! An issuer on loopback, and what becomes of its tokens.

mod approvals;
mod issuer;
mod keysets;
mod once;
mod sessions;
mod tokens;

use serde_json::{Value, json};

use self::issuer::Issuer;
use crate::authority::testkit::{Kit, Reply};

const AUDIENCE: &str = "caracal-test";
const ID_TOKEN: (&str, &str) = ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token");

/// A kit whose first zone knows this issuer, and may fetch its keys on this host.
async fn kit(issuer: &Issuer) -> Kit {
    kit_with(issuer, "").await
}

/// The same with more members of the issuer's table.
async fn kit_with(issuer: &Issuer, more: &str) -> Kit {
    Kit::with_more("[federation]\nprivate_hosts = [\"127.0.0.1\"]\n", &table(issuer, more)).await
}

fn table(issuer: &Issuer, more: &str) -> String {
    format!(
        "\n[[subject_issuers]]\nissuer = \"{}\"\njwks_url = \"{}\"\naudience = \"{AUDIENCE}\"\n{more}\n",
        issuer.name(),
        issuer.jwks_url()
    )
}

async fn federate(kit: &Kit, token: &str) -> Reply {
    federate_with(kit, token, &[]).await
}

async fn federate_with(kit: &Kit, token: &str, more: &[(&str, &str)]) -> Reply {
    kit.mint(&[&[("subject_token", token), ID_TOKEN], more].concat()).await
}

/// The claims of a good token at the kit's time.
fn claims(issuer: &Issuer, kit: &Kit) -> Value {
    let now = kit.clock.now_s();
    json!({ "iss": issuer.name(), "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now.saturating_add(300) })
}

/// The last event in the ledger of the first zone.
async fn recorded(kit: &Kit) -> Value {
    kit.ledger("z1").await.last().unwrap().clone()
}
