//! The whole machine at once: coordinator, token endpoint, gate, operator and reload, without sockets. Beside it
//! runs a model that is told only what was asked for; whatever the machine lets through must be in the model.
//!
//! `make fuzz` runs many more cases.

mod model;
mod steps;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use caracal_policies::Permit;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use self::model::{
    APPLICATIONS, BILLING, Edge, LABELS, Mandate, Model, OWNER, PLAIN, POLICIES, READ, RESOURCES, SCOPES,
    SESSION_S, Session,
};
use self::steps::{Act, Change, Step, What, step};
use crate::authority::testkit::{Kit, OTHER_SECRET, SECRET, cases, claims};
use crate::gate::authorize::Seen;
use crate::gate::head::Head;
use crate::gate::{authorize, enter, standing};
use crate::state::{Caller, Extent, Target};

struct Machine {
    kit: Kit,
    model: Model,
}

fn picked(mask: u8, all: &[&'static str]) -> BTreeSet<&'static str> {
    all.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, word)| *word).collect()
}

/// Any place of a list; none of an empty one.
fn place<T>(list: &[T], number: usize) -> Option<usize> {
    number.checked_rem(list.len())
}

impl Machine {
    async fn new() -> Self {
        let machine = Self { kit: Kit::new().await, model: Model::default() };
        machine.reload(0).await;
        machine
    }

    fn now(&self) -> i64 {
        self.kit.app.clock.now()
    }

    /// A session-class mandate, when one is to be had.
    async fn bearer(&self, application: &str) -> Option<String> {
        let (secret, resource) =
            if application == OWNER { (SECRET, BILLING) } else { (OTHER_SECRET, "resource://other") };
        let fields = [
            ("zone_id", "z1"),
            ("application_id", application),
            ("client_secret", secret),
            ("resource", resource),
            ("scope", "agent:lifecycle"),
        ];
        let reply = self.kit.mint(&fields).await;
        (reply.status == 200).then(|| reply.text("access_token"))
    }

    async fn take(mut self, step: Step) -> Self {
        match step {
            Step::Start { application, parent, label } => {
                let parent = parent.and_then(|parent| place(&self.model.sessions, parent));
                self.start(APPLICATIONS[application], parent, LABELS[label]).await;
            }
            Step::Delegate { source, target, scopes, resources, hops, ttl } => {
                let sessions = &self.model.sessions;
                if let (Some(source), Some(target)) = (place(sessions, source), place(sessions, target)) {
                    let (scopes, resources) = (picked(scopes, &SCOPES), picked(resources, &RESOURCES));
                    self.delegate(source, target, scopes, resources, hops, ttl).await;
                }
            }
            Step::Mint { edge, scopes, resource } => {
                if let Some(edge) = place(&self.model.edges, edge) {
                    self.mint(edge, picked(scopes, &SCOPES), RESOURCES[resource]).await;
                }
            }
            Step::Use { mandate, scope, resource } => {
                if let Some(mandate) = place(&self.model.mandates, mandate) {
                    self.present(mandate, SCOPES[scope], RESOURCES[resource]);
                }
            }
            Step::Change { session, change } => self.change(session, change).await,
            Step::Revoke { what, number } => self.revoke(what, number).await,
            Step::Operate(act) => self.operate(act).await,
            Step::Restart => return Self { kit: self.kit.restart().await, model: self.model },
            Step::Pass { seconds } => self.pass(Duration::from_secs(seconds.into())).await,
        }
        self
    }

    async fn operate(&mut self, act: Act) {
        let state = &self.kit.app.state;
        match act {
            Act::Stop { application, extent } => {
                let id = APPLICATIONS[application];
                let target = Target::Application { id: id.into(), extent };
                state.revoke("z1", &target, "stopped").await.unwrap();
                self.ends_all_of(id);
                if extent == Extent::Block {
                    self.model.blocked.insert(id);
                }
                // Ties with the cut count as before it.
                self.pass(Duration::from_millis(1)).await;
            }
            Act::Restore { application } => {
                state.restore_application("z1", APPLICATIONS[application]).await.unwrap();
                self.model.blocked.remove(APPLICATIONS[application]);
            }
            Act::Freeze => {
                state.freeze("z1").await.unwrap();
                self.model.frozen = true;
            }
            Act::Unfreeze => {
                state.unfreeze("z1").await.unwrap();
                self.model.frozen = false;
            }
            Act::Reload { policy } => {
                self.reload(policy).await;
                self.model.policy = policy;
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        self.kit.clock.advance(time);
        self.kit.app.state.sweep(self.now()).await.unwrap();
        self.model.settle(self.now());
    }

    async fn start(&mut self, application: &'static str, parent: Option<usize>, label: &'static str) {
        let Some(bearer) = self.bearer(application).await else { return };
        let mut body = json!({ "application_id": application, "labels": [label], "ttl_seconds": SESSION_S });
        if let Some(parent) = parent {
            body["parent_id"] = json!(self.model.sessions[parent].id);
        }
        let reply = self.kit.call("POST", "/zones/z1/agents", &bearer, &body).await;
        if reply.status != 201 {
            return;
        }
        let now = self.now();
        let started = self.model.sessions.len();
        if let Some(parent) = parent {
            assert!(self.model.acts(parent, now), "a session was started under one that does not stand");
        }
        self.model.sessions.push(Session {
            id: reply.text("agent_session_id"),
            application,
            label,
            parent,
            ends_at: now.saturating_add(i64::from(SESSION_S).saturating_mul(1_000)),
            ended: false,
            suspended: false,
        });
        if let (Some(edge), Some(parent)) = (reply.json["delegation_edge_id"].as_str(), parent) {
            self.inherited(edge, parent, started, now);
        }
    }

    /// An inherited edge is a copy of one that the parent holds, with a hop less.
    fn inherited(&mut self, id: &str, parent: usize, child: usize, now: i64) {
        let model = &self.model;
        let application = model.sessions[child].application;
        let held: Vec<usize> = (0..model.edges.len())
            .filter(|place| {
                let edge = &model.edges[*place];
                edge.target == parent
                    && model.sessions[parent].application == application
                    && model.open(edge, now)
            })
            .collect();
        assert_eq!(held.len(), 1, "inherited from exactly one");
        let above = &model.edges[held[0]];
        let copy = Edge {
            id: id.to_owned(),
            source: parent,
            target: child,
            parent: Some(held[0]),
            hops: above.hops.saturating_sub(1),
            ..above.clone()
        };
        self.model.edges.push(copy);
    }

    async fn delegate(
        &mut self,
        source: usize,
        target: usize,
        scopes: BTreeSet<&'static str>,
        resources: BTreeSet<&'static str>,
        hops: u32,
        ttl: u32,
    ) {
        let (giver, taker) = (self.model.sessions[source].clone(), self.model.sessions[target].clone());
        let Some(bearer) = self.bearer(giver.application).await else { return };
        let body = json!({
            "source_session_id": giver.id, "target_session_id": taker.id,
            "issuer_application_id": giver.application, "receiver_application_id": taker.application,
            "scopes": scopes, "ttl_seconds": ttl,
            "constraints": { "resources": resources, "max_hops": hops },
        });
        let reply = self.kit.call("POST", "/zones/z1/delegations", &bearer, &body).await;
        if reply.status != 201 {
            return;
        }
        let now = self.now();
        let model = &self.model;
        assert!(model.acts(source, now) && model.acts(target, now), "between sessions that do not stand");
        let parent = reply.json["parent_edge_id"].as_str();
        let parent = parent.map(|id| model.edges.iter().position(|edge| edge.id == id).unwrap());
        let holds_one = model.edges.iter().any(|edge| edge.target == source && model.open(edge, now));
        assert_eq!(parent.is_some(), holds_one, "who holds a delegation hands on that and nothing else");
        let above = parent.map_or(i64::MAX, |above| model.edges[above].expires_at);
        self.model.edges.push(Edge {
            id: reply.text("delegation_edge_id"),
            source,
            target,
            parent,
            scopes,
            resources,
            hops: usize::try_from(hops).unwrap(),
            expires_at: above.min(now.saturating_add(i64::from(ttl).saturating_mul(1_000))),
            revoked: false,
        });
    }

    async fn mint(&mut self, edge: usize, scopes: BTreeSet<&'static str>, resource: &'static str) {
        let held = self.model.edges[edge].clone();
        let receiver = self.model.sessions[held.target].clone();
        let secret = if receiver.application == OWNER { SECRET } else { OTHER_SECRET };
        let scope = scopes.iter().copied().collect::<Vec<_>>().join(" ");
        let fields = [
            ("zone_id", "z1"),
            ("application_id", receiver.application),
            ("client_secret", secret),
            ("resource", resource),
            ("scope", scope.as_str()),
            ("agent_session_id", receiver.id.as_str()),
            ("delegation_edge_id", held.id.as_str()),
        ];
        let reply = self.kit.mint(&fields).await;
        if reply.status != 200 {
            return;
        }
        let now = self.now();
        if let Err(why) = self.model.holds(edge, &scopes, resource, now) {
            panic!("minted {scopes:?} on {resource}, although {why}");
        }
        let token = reply.text("access_token");
        let claims = claims(&token);
        let ends_at = claims["exp"].as_i64().unwrap().saturating_mul(1_000);
        assert!(ends_at <= held.expires_at, "a mandate never outlives its delegation");
        self.model.mandates.push(Mandate {
            sid: claims["sid"].as_str().unwrap().to_owned(),
            application: receiver.application,
            token,
            edge,
            scopes,
            resource,
            ends_at,
            dead: false,
        });
    }

    /// Presents a mandate as the gateway's listener would; notes whether it was let through.
    fn present(&mut self, place: usize, scope: &'static str, resource: &'static str) {
        let mandate = self.model.mandates[place].clone();
        let passed = self.gate(&mandate.token, scope, resource);
        let now = self.now();
        let model = &mut self.model;
        if passed.is_ok() {
            let refused = model.holds(mandate.edge, &mandate.scopes, resource, now).err().or_else(|| {
                let carried =
                    resource == mandate.resource && (resource == PLAIN || mandate.scopes.contains(scope));
                (mandate.dead || now >= mandate.ends_at || !carried)
                    .then(|| format!("{mandate:?} is not good for it"))
            });
            if let Some(why) = refused {
                panic!("{scope} on {resource} was let through, although {why}");
            }
            model.let_through = model.let_through.saturating_add(1);
        }
        // From the mark on it is used up, whatever came of it; before the mark it stays what it was.
        if passed.err() != Some("before the mark") {
            model.mandates[place].dead = true;
        }
    }

    /// The checks of a request in their order: head and identity, mark, standing, decision.
    fn gate(&self, token: &str, scope: &str, resource: &str) -> Result<Permit, &'static str> {
        let app = &self.kit.app;
        let (method, target) = if scope == READ { ("GET", "/read/1") } else { ("POST", "/write/1") };
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1"));
        headers.insert("x-caracal-resource", HeaderValue::from_str(resource).unwrap());
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let head = Head { method, target, authority: None, headers: &headers, peer, tls: false };
        let snapshot = app.snapshot.load();
        let entered = enter(app, &snapshot, &head).map_err(|_refusal| "before the mark")?;
        let claims = entered.mandate.claims();
        if !claims.epoch.as_deref().is_some_and(|epoch| app.state.accepts_epoch(epoch)) {
            return Err("before the mark");
        }
        let keep = claims.exp.saturating_mul(1_000);
        app.state.use_once("z1", &claims.jti, &claims.client_id, keep).map_err(|_used| "used")?;
        let current = standing::check(&app.state, entered.mandate.clone(), self.now())
            .map_err(|_refusal| "standing")?;
        let outcome = authorize::decide(
            &entered.matched,
            &current,
            &head,
            &entered.path,
            &Seen { call: None, arguments: None, body: None, now_s: 0, answered: false },
        );
        outcome.result.map_err(|_refusal| "decision")
    }

    async fn change(&mut self, session: usize, change: Change) {
        let Some(session) = place(&self.model.sessions, session) else { return };
        let (state, id) = (&self.kit.app.state, self.model.sessions[session].id.clone());
        let operator = Caller::Operator;
        let done = match change {
            Change::Suspend => state.suspend_session("z1", &id, &operator).await.is_ok(),
            Change::Resume => state.resume_session("z1", &id, &operator).await.is_ok(),
            Change::End => state.end_session("z1", &id, &operator, None, "done").await.is_ok(),
        };
        for place in self.model.under(session).into_iter().filter(|_| done) {
            match change {
                Change::Suspend => self.model.sessions[place].suspended = true,
                Change::Resume => self.model.sessions[place].suspended = false,
                Change::End => self.model.sessions[place].ended = true,
            }
        }
    }

    async fn revoke(&mut self, what: What, number: usize) {
        let (now, model) = (self.now(), &self.model);
        let found = match what {
            What::Delegation => place(&model.edges, number)
                .map(|edge| (edge, Target::Delegation(model.edges[edge].id.as_str().into()))),
            What::Record => place(&model.mandates, number)
                .map(|mandate| (mandate, Target::Record(model.mandates[mandate].sid.as_str().into()))),
            What::Subject => place(&APPLICATIONS, number)
                .map(|application| (application, Target::Subject(APPLICATIONS[application].into()))),
        };
        let Some((number, target)) = found else { return };
        if self.kit.app.state.revoke("z1", &target, "revoked").await.is_err() {
            return;
        }
        match what {
            What::Delegation => self.model.take_back(number, now),
            What::Record => self.model.mandates[number].dead = true,
            What::Subject => self.ends_all_of(APPLICATIONS[number]),
        }
    }

    fn ends_all_of(&mut self, application: &str) {
        let own = |session: &Session| session.application == application;
        let own: Vec<usize> =
            (0..self.model.sessions.len()).filter(|place| own(&self.model.sessions[*place])).collect();
        for session in own {
            self.model.end(session);
        }
        for mandate in self.model.mandates.iter_mut().filter(|mandate| mandate.application == application) {
            mandate.dead = true;
        }
    }

    async fn reload(&self, policy: usize) {
        let roles: Vec<String> =
            POLICIES[policy].iter().map(|(label, scopes)| format!("{label} = {scopes:?}")).collect();
        let roles = format!("roles = {{ {} }}", roles.join(", "));
        self.kit
            .rewrite(|text| {
                let (before, rest) = text.split_once("[grants.\"resource://billing\"]").unwrap();
                let (grant, after) = rest.split_once("[grants.\"resource://plain\"]").unwrap();
                let grant: Vec<&str> =
                    grant.lines().map(|line| if line.starts_with("roles") { &roles } else { line }).collect();
                let open = "operation_enforcement = \"transport_uniform\"";
                let enforced = "operation_enforcement = \"enforced\"\noperations = [\n\
                    { method = \"GET\", path = \"/read/**\", scope = \"invoice.read\" },\n\
                    { method = \"POST\", path = \"/write/**\", scope = \"invoice.write\" },\n]";
                let before = if before.contains("/write/**") {
                    before.to_owned()
                } else {
                    before.replacen(open, enforced, 1)
                };
                let grant = grant.join("\n");
                format!(
                    "{before}[grants.\"resource://billing\"]{grant}\n[grants.\"resource://plain\"]{after}"
                )
            })
            .await;
        assert!(self.kit.app.readiness().is_ok(), "{:?}", self.kit.app.readiness());
    }
}

async fn run(steps: Vec<Step>) -> usize {
    let mut machine = Machine::new().await;
    for step in steps {
        machine = machine.take(step).await;
    }
    machine.model.let_through
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn an_ordinary_life_is_let_through() {
    let start = |parent| Step::Start { application: 0, parent, label: 0 };
    let deliver = Step::Delegate { source: 0, target: 1, scopes: 3, resources: 1, hops: 2, ttl: 600 };
    let mint = |edge| Step::Mint { edge, scopes: 3, resource: 0 };
    let call = |mandate, scope| Step::Use { mandate, scope, resource: 0 };
    let steps =
        vec![start(None), start(None), deliver, mint(0), call(0, 0), call(0, 0), start(Some(1)), mint(1)];
    let later =
        vec![Step::Restart, call(1, 1), mint(1), Step::Operate(Act::Reload { policy: 1 }), call(2, 0)];
    let passed = block_on(run(steps.into_iter().chain(later).collect()));
    assert_eq!(
        passed, 2,
        "the first, and the one kept over a restart; not the second use, not the narrowed one"
    );
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn nothing_is_let_through_that_the_root_did_not_hold(steps in proptest::collection::vec(step(), 10..60)) {
        block_on(run(steps));
    }
}
