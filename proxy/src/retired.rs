//! What left a bundle does not come back with a file.
//!
//! A secret that a bundle in force drops is retired: it is refused from then on, whatever the files say, until an
//! operator readmits it. An application that leaves loses all that was issued to it. Both are found by comparing what
//! is in force with what this node had in force before, which is stored; so it does not matter how a bundle came into
//! force, or whether the process ran when the files changed. What is retired is remembered in the store that a fleet
//! shares, by a digest of the hash, with which nobody can ask for anything.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use caracal_policies::{SecretHash, Zone};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::app::App;
use crate::ledger::Event;
use crate::state::{Extent, Identity, StateError, Target, TombstoneKind};

/// Characters of a secret's name that are shown.
const SHOWN: usize = 16;
/// The reason with which sessions of an application end that left.
const REMOVED: &str = "application_removed";

/// Who could ask, as it was when it was last looked at.
#[derive(Debug)]
pub struct Retirement {
    known: tokio::sync::Mutex<Known>,
    /// What the log was told of.
    told: Mutex<HashSet<KeptOut>>,
}

#[derive(Debug)]
struct Known {
    identities: HashSet<Identity>,
    /// Generation of the snapshot that was looked at; 0 to look again.
    generation: u64,
}

/// A secret that the files list and that is refused because it was retired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeptOut {
    /// The zone.
    pub zone: Arc<str>,
    /// The application.
    pub application: Arc<str>,
    /// The name of its hash.
    pub secret: Arc<str>,
}

impl KeptOut {
    /// What an operator is told.
    #[must_use]
    pub fn words(&self) -> String {
        let (zone, application, secret) = (&self.zone, &self.application, short(&self.secret));
        format!(
            "application `{application}` lists a secret ({secret}) that was retired; it stays refused until \
             `caracal secret readmit --zone {zone} --app {application}`"
        )
    }
}

/// What names a hash: a digest of its stored form.
#[must_use]
pub fn name(hash: &SecretHash) -> Arc<str> {
    let form = match hash {
        SecretHash::Sha256(digest) => format!("sha256${}", URL_SAFE_NO_PAD.encode(digest)),
        SecretHash::Argon2id { salt, hash } => {
            format!("argon2id${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash))
        }
    };
    hex::encode(digest(&SHA256, form.as_bytes())).into()
}

/// As much of a name as is shown.
#[must_use]
pub fn short(name: &str) -> &str {
    name.get(..SHOWN).unwrap_or(name)
}

/// The secrets of a zone that its applications list and that are refused, sorted.
#[must_use]
pub fn kept_out(app: &App, zone: &Zone) -> Vec<KeptOut> {
    let listed = zone.applications().flat_map(|application| {
        application.secrets.iter().map(|hash| KeptOut {
            zone: Arc::clone(zone.id()),
            application: Arc::clone(&application.id),
            secret: name(hash),
        })
    });
    let buried = |one: &KeptOut| app.state.buried(TombstoneKind::SecretHash, &one.zone, &one.secret);
    let mut kept: Vec<KeptOut> = listed.filter(buried).collect();
    kept.sort_unstable();
    kept
}

impl Retirement {
    /// With what was known when the process before ended.
    #[must_use]
    pub fn new(identities: Vec<Identity>) -> Self {
        let known = Known { identities: identities.into_iter().collect(), generation: 0 };
        Self { known: tokio::sync::Mutex::new(known), told: Mutex::default() }
    }

    /// Takes the turn to compare, so that what an act of an operator changes is found in that operator's name.
    pub async fn turn(&self) -> Turn<'_> {
        Turn(self.known.lock().await)
    }

    /// As [`Turn::settle`], for nobody's act in particular.
    ///
    /// # Errors
    /// As [`Turn::settle`].
    pub async fn settle(&self, app: &App) -> Result<(), StateError> {
        self.turn().await.settle(app, None).await
    }

    /// Lets secrets of an application in again that its bundle lists: all that are retired, or those whose name begins
    /// with `secret`. What was let in.
    ///
    /// # Errors
    /// [`StateError`] when it could not be committed; then it stays out.
    pub async fn readmit(
        &self,
        app: &App,
        zone: &Zone,
        application: &str,
        secret: &str,
    ) -> Result<Vec<KeptOut>, StateError> {
        let mut meant = kept_out(app, zone);
        meant.retain(|one| *one.application == *application && one.secret.starts_with(secret));
        for one in &meant {
            app.state.readmit(TombstoneKind::SecretHash, &one.zone, &one.secret).await?;
        }
        // From now on it can be retired again.
        let mut turn = self.turn().await;
        turn.0.generation = 0;
        turn.settle(app, None).await?;
        self.tell(app);
        Ok(meant)
    }

    /// Tells metrics, and once the log, what the files list and is refused.
    pub fn tell(&self, app: &App) {
        let mut now = HashSet::new();
        for (zone, live) in &app.snapshot.load().zones {
            let kept = kept_out(app, &live.zone);
            let count = i64::try_from(kept.len()).unwrap_or(i64::MAX);
            app.metrics.retired_secrets.with_label_values(&[&**zone]).set(count);
            now.extend(kept);
        }
        let mut told = self.told.lock();
        for one in now.difference(&told) {
            let (zone, application, secret) = (&*one.zone, &*one.application, short(&one.secret));
            tracing::warn!(zone, application, secret, "{}", one.words());
        }
        *told = now;
    }
}

/// The turn of one who compares.
#[derive(Debug)]
pub struct Turn<'r>(MutexGuard<'r, Known>);

impl Turn<'_> {
    /// Compares who can ask now with who could, and ends what belongs to those who cannot any more. `by` is the operator
    /// whose act it is, if it is one's.
    ///
    /// Cost: nothing while the snapshot is the one that was looked at.
    ///
    /// # Errors
    /// [`StateError`] when something could not be committed: it is in force all the same, and tried again.
    pub async fn settle(mut self, app: &App, by: Option<u32>) -> Result<(), StateError> {
        let known = &mut *self.0;
        let snapshot = app.snapshot.load();
        if known.generation == snapshot.generation {
            return Ok(());
        }
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for live in snapshot.zones.values() {
            let now = identities(&live.zone);
            let names: HashSet<&str> = now.iter().map(|one| &*one.secret).collect();
            let before = known.identities.iter().filter(|one| one.zone == *live.zone.id());
            let lost: Vec<Identity> = before.filter(|one| !now.contains(*one)).cloned().collect();
            for one in &lost {
                if one.secret.is_empty() {
                    end_application(app, one, by).await?;
                } else if !names.contains(&*one.secret) {
                    retire(app, one, by).await?;
                }
            }
            gone.extend(lost);
            let good = |one: &Identity| !app.state.buried(TombstoneKind::SecretHash, &one.zone, &one.secret);
            new.extend(now.iter().filter(|one| !known.identities.contains(*one) && good(one)).cloned());
        }
        if !(new.is_empty() && gone.is_empty()) {
            app.state.store_identities(new.clone(), gone.clone()).await?;
        }
        for one in gone {
            known.identities.remove(&one);
        }
        known.identities.extend(new);
        known.generation = snapshot.generation;
        Ok(())
    }
}

/// Who can ask by what a bundle says.
fn identities(zone: &Zone) -> HashSet<Identity> {
    let of = |application: &Arc<str>, secret: Arc<str>| Identity {
        zone: Arc::clone(zone.id()),
        application: Arc::clone(application),
        secret,
    };
    let mut all = HashSet::new();
    for application in zone.applications() {
        all.insert(of(&application.id, "".into()));
        all.extend(application.secrets.iter().map(|hash| of(&application.id, name(hash))));
    }
    all
}

async fn retire(app: &App, one: &Identity, by: Option<u32>) -> Result<(), StateError> {
    let before = app.state.buried(TombstoneKind::SecretHash, &one.zone, &one.secret);
    // Also when it is retired already: the commit of that may have failed.
    let committed = app.state.bury(TombstoneKind::SecretHash, &one.zone, &one.secret).await;
    if !before {
        let (zone, application, secret) = (&*one.zone, &*one.application, short(&one.secret));
        tracing::info!(zone, application, secret, "a secret left the bundle and is retired");
        record(app, one, "application_secret_retired", by, json!({ "secret": secret }));
    }
    committed
}

async fn end_application(app: &App, one: &Identity, by: Option<u32>) -> Result<(), StateError> {
    let target = Target::Application { id: Arc::clone(&one.application), extent: Extent::Cut };
    let doomed = app.state.revoke(&one.zone, &target, REMOVED).await;
    // Nothing but a commit can fail here.
    let doomed = doomed.map_err(|error| error.source.map_or(StateError::Closed, |source| *source))?;
    let (records, sessions) = (doomed.records.len(), doomed.sessions.len());
    let (zone, application) = (&*one.zone, &*one.application);
    tracing::info!(
        zone,
        application,
        records,
        sessions,
        "an application left the bundle; its authority ended"
    );
    record(app, one, "application_removed", by, json!({ "records": records, "sessions": sessions }));
    Ok(())
}

fn record(app: &App, one: &Identity, act: &'static str, by: Option<u32>, about: Value) {
    let mut metadata: Map<String, Value> = crate::state::object(about);
    metadata.insert("application_id".into(), json!(one.application));
    metadata.extend(by.map(|uid| ("operator_uid".to_owned(), json!(uid))));
    let event = Event {
        id: Uuid::now_v7().to_string(),
        zone_id: one.zone.to_string(),
        event_type: act,
        request_id: Uuid::new_v4().to_string(),
        evaluation_status: "complete".to_owned(),
        diagnostics: json!([]),
        metadata,
        occurred_at: app.clock.now(),
        ..Event::default()
    };
    if let Err(error) = app.ledger.event(event) {
        tracing::error!(%error, act, "it is in force, and could not be recorded");
    }
}

/// What an operator is told of zones, in the order of their ids.
#[must_use]
pub fn warnings(app: &App, zone: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let snapshot = app.snapshot.load();
    let meant = snapshot.zones.iter().filter(|(id, _)| zone.is_none_or(|zone| zone == &***id));
    let words = |zone: &Zone| kept_out(app, zone).iter().map(KeptOut::words).collect::<Vec<_>>();
    let all = meant.map(|(id, live)| (id.to_string(), words(&live.zone)));
    all.filter(|(_, words)| !words.is_empty()).collect()
}
