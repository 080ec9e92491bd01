//! Whose connection a request acts with.

use caracal_mandates::Use;

use super::*;
use crate::authority::testkit::Kit;
use crate::state::Granted;

async fn connected(more: &str) -> Kit {
    let kit = Kit::with_more(
        "",
        &format!(
            "\n[[providers]]\nidentifier = \"provider://p\"\nkind = \"oauth2_authorization_code\"\n\
             issuer = \"https://id.example\"\nclient_id = \"edge\"\nclient_auth_method = \"none\"\n{more}\n"
        ),
    )
    .await;
    for subject in ["ada", SHARED_SUBJECT] {
        let granted = Granted { sealed: subject.as_bytes().into(), renewable: false, expires_at: None };
        let id = kit.app.state.connection_id();
        kit.app.state.connect(&key(subject), &id, &granted).await.unwrap();
    }
    kit
}

fn key(subject: &str) -> ConnectionKey {
    ConnectionKey { zone: "z1".into(), provider: "provider://p".into(), subject: subject.into() }
}

/// Whose connection is used.
fn used(kit: &Kit, sub_type: SubjectType, sub: &str) -> Option<String> {
    let snapshot = kit.app.snapshot.load();
    let zone = &snapshot.zones["z1"].zone;
    let provider = zone.providers().find(|provider| &*provider.identifier == "provider://p").unwrap();
    let order = order(&snapshot, "z1", provider).unwrap();
    let consent = provider.service_token().unwrap().consent().unwrap();
    let claims = Claims { sub: sub.to_owned(), ..Claims::empty(Use::Gateway, sub_type) };
    match connection(&kit.app, &order, consent, &claims) {
        Ok(found) => Some(found.key.subject.to_string()),
        Err(refusal) => {
            assert_eq!(refusal, Refusal::CredentialNotProvisioned);
            None
        }
    }
}

#[tokio::test]
async fn a_person_does_not_act_with_the_shared_account_unless_the_provider_says_so() {
    let kit = connected("").await;
    let application = kit.app.snapshot.load().zones["z1"].zone.applications().next().unwrap().id.to_string();
    let shared = Some(SHARED_SUBJECT.to_owned());
    assert_eq!(used(&kit, SubjectType::User, "ada").as_deref(), Some("ada"));
    assert_eq!(used(&kit, SubjectType::User, "bob"), None);
    assert_eq!(used(&kit, SubjectType::User, SHARED_SUBJECT), None);
    assert_eq!(used(&kit, SubjectType::Application, &application), shared);
    // Once an operator has ended it, nobody has it; and a person that is called like an application is none.
    kit.app.state.end_connection(&key("ada")).await.unwrap();
    assert_eq!(used(&kit, SubjectType::User, "ada"), None);
    let granted = Granted { sealed: b"own".as_slice().into(), renewable: false, expires_at: None };
    let id = kit.app.state.connection_id();
    kit.app.state.connect(&key(&application), &id, &granted).await.unwrap();
    assert_eq!(used(&kit, SubjectType::Application, &application).as_deref(), Some(&*application));
    assert_eq!(used(&kit, SubjectType::User, &application), None);
    let kit = connected("shared_fallback = true").await;
    assert_eq!(used(&kit, SubjectType::User, "bob"), shared);
}
