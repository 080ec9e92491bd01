//! An axum application that takes nobody's word: it verifies the mandates the edge sends it.
//!
//! Behind a `caracal_mandate` provider the edge puts a mandate of one minute on each request, made for this
//! application alone. [`router`] shows what each route asks of it, [`HttpJwks`] how the keys are fetched, [`follow`] how
//! it hears of revocations from a fleet.

mod jwks;
mod revocations;

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use caracal_mandates::tower::{Principal, Protection, Requirements};
use serde_json::{Value, json};

pub use jwks::HttpJwks;
pub use revocations::follow;

/// The application: reading invoices, paying one, and a health check for anybody.
pub fn router(protection: &Protection) -> Router {
    let reading = protection.requiring(Requirements::default().scope("invoices:read"));
    let paying = protection.requiring(Requirements::default().scope("invoices:pay").session().delegation());
    Router::new()
        .route("/invoices", get(list).layer(reading))
        .route("/invoices/{id}/pay", post(pay).layer(paying))
        .route("/health", get(|| async { "ok\n" }))
}

async fn list(Extension(caller): Extension<Principal>) -> Json<Value> {
    Json(json!({
        "invoices": [ { "id": "1", "amount": 120 }, { "id": "2", "amount": 75 } ],
        // Finer than a route: who may also pay is told so.
        "payable": caller.has_scope("invoices:pay"),
        "asked_by": description(&caller),
    }))
}

async fn pay(Extension(caller): Extension<Principal>, Path(id): Path<String>) -> Json<Value> {
    Json(json!({ "paid": id, "asked_by": description(&caller) }))
}

/// What an application would write into its own records.
fn description(caller: &Principal) -> Value {
    json!({
        "application": caller.application(),
        "subject": caller.subject(),
        "zone": caller.zone(),
        "session": caller.session(),
        "delegation": caller.delegation(),
    })
}
