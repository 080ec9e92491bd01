//! `caracal explain`: why a decision came out as it did, rule by rule, and what would have been enough.
//!
//! The ledger's record holds the input of the decision and the version of the bundle it was made under; both are
//! put to the one decision again, and to the version in force.

mod remedy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use caracal_policies::{RulePlaces, Zone};
use clap::Args;
use serde_json::{Value, json};

use super::exit::Failed;
use super::out::{Out, Style, visible};
use super::versions::{journal, running, short};
use super::{Exit, Global, diff, edge};
use crate::config::Config;
use crate::ledger::{Record, read};
use crate::question::{self, Answer, Kind, Question, steps};
use crate::reload::versions::Versions;
use remedy::Remedy;
use steps::{Step, named};

pub(super) const HELP: &str = "\
The id is the `decision_id` of a refusal, or the request id in `X-Request-Id`; the records are those
of the ledger here. Each rule is shown with what it was compared with, up to the one that decided.
A grant is proposed only where it would have been enough, and only as much as that takes. What was
revoked or used up since is not looked at, only the policy.

  caracal explain 0193d1c2-7c1e-7e7a-9d7e-0d9c6d1b2f3a
  caracal explain 0193d1c2-7c1e-7e7a-9d7e-0d9c6d1b2f3a --json

Exit codes: 0 told, 1 no such decision or not readable, 64 bad configuration.";

/// `caracal explain ...`
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The decision's id, or the request's
    id: String,
    /// Only this zone
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

/// One decision, explained.
struct Explained {
    record: Record,
    question: Question,
    /// None for an allow.
    reason: Option<String>,
    digest: String,
    in_force: bool,
    /// What the version it was decided under answers again; none when that is not kept whole any more.
    again: Option<Answer>,
    steps: Vec<Step>,
    remedy: Option<Remedy>,
    /// What the version in force answers, where the policy decided.
    now: Option<Answer>,
}

pub(super) async fn run(global: &Global, args: &ExplainArgs, out: &mut Out) -> Result<Exit, Failed> {
    let config = edge::load(global)?;
    let records = records(&config, args)?;
    let running = running(&config).await?;
    let explained: Vec<Explained> = records
        .into_iter()
        .map(|record| explain(&config, running.as_ref(), record))
        .collect::<Result<_, _>>()?;
    if global.json {
        let decisions: Vec<Value> = explained.iter().map(summary).collect();
        out.value(&json!({ "decisions": decisions }), true)?;
        return Ok(Exit::Done);
    }
    for one in &explained {
        tell(one, out)?;
    }
    Ok(Exit::Done)
}

/// The decisions with this id; the result of a call names its own.
fn records(config: &Config, args: &ExplainArgs) -> Result<Vec<Record>, Failed> {
    let dir = config.state_dir.join("ledger");
    let find = |id: &str| read::find(&dir, args.zone.as_deref(), id);
    let mut found = find(&args.id)?;
    let of = found.iter().find_map(|record| record.metadata.get("decision_id")?.as_str().map(str::to_owned));
    if let Some(id) = of {
        found = find(&id)?;
    }
    let kinds: Vec<String> = found.iter().map(|record| record.event_type.clone()).collect();
    found.retain(|record| !Question::all(record).is_empty());
    match (found.is_empty(), kinds.first()) {
        (false, _) => Ok(found),
        (true, None) => Err(Failed::new(format!(
            "the ledger in `{}` has no record with the id `{}`",
            dir.display(),
            visible(&args.id)
        ))),
        (true, Some(kind)) => Err(Failed::new(format!(
            "the record is of no decision by rules ({}); see `caracal audit`",
            visible(kind)
        ))),
    }
}

fn explain(
    config: &Config,
    running: Option<&BTreeMap<String, String>>,
    record: Record,
) -> Result<Explained, Failed> {
    let zone = record.zone_id.as_str();
    let word = |name: &str| record.metadata.get(name).and_then(Value::as_str).map(str::to_owned);
    let digest = word("manifest_sha").or_else(|| word("bundle")).unwrap_or_default();
    let kept = kept(config, zone, &digest)?;
    // What is in force may not be kept, and the rest can be told all the same.
    let current = diff::side(config, running, zone, "active").ok().map(|side| side.zone);
    let said = record.diagnostics.pointer("/0/reason").and_then(Value::as_str);
    let reason = (record.decision != "allow").then(|| said.unwrap_or(&record.evaluation_status).to_owned());
    let mut questions = Question::all(&record);
    // Of several resources, the one that was not simply allowed.
    let stands_out = kept.as_ref().and_then(|(zone, _)| {
        questions.iter().position(|question| !matches!(question.ask(zone), Answer::Allow(_)))
    });
    let question = questions.swap_remove(stands_out.unwrap_or_default());
    let of_policy = |zone: &Zone| {
        !question.resource.is_empty()
            && reason.as_ref().is_none_or(|reason| steps::is_of_policy(reason, zone, &question))
    };
    let (mut steps, mut again, mut remedy) = (Vec::new(), None, None);
    if let Some((zone, places)) = &kept {
        steps = steps::path(&question, reason.as_deref(), zone, Some(places));
        again = of_policy(zone).then(|| question.ask(zone));
        remedy = reason.as_ref().map(|reason| remedy::find(&question, reason, zone, Some(places)));
    }
    let now = current.as_ref().filter(|zone| of_policy(zone)).map(|zone| question.ask(zone));
    let in_force = current.as_ref().is_some_and(|zone| zone.digest().to_string() == digest);
    Ok(Explained { record, question, reason, digest, in_force, again, steps, remedy, now })
}

/// The version with this digest and where its rules stand, while it is kept.
fn kept(config: &Config, zone: &str, digest: &str) -> Result<Option<(Zone, RulePlaces)>, Failed> {
    if !config.zones.contains_key(zone) {
        return Ok(None);
    }
    let journal = journal(config, zone)?;
    let Ok(found) = journal.find(digest) else { return Ok(None) };
    let versions = Versions::of(&config.state_dir, zone);
    let Some(read) = versions.load(&found.version) else { return Ok(None) };
    let places = RulePlaces::of(&read.source, zone);
    let policy = diff::side(config, None, zone, &found.version)?.zone;
    if policy.digest().to_string() == digest {
        return Ok(Some((policy, places)));
    }
    // One that was activated came with the applications and issuers that the files had.
    for other in journal.newest_first() {
        let with = policy.for_identities_of(&diff::side(config, None, zone, &other.version)?.zone);
        if with.digest().to_string() == digest {
            return Ok(Some((with, places)));
        }
    }
    Ok(None)
}

impl Explained {
    /// The outcome as an answer, to compare others with.
    fn recorded(&self) -> Answer {
        match self.reason.as_deref() {
            None => Answer::Allow(String::new()),
            Some("approval_pending" | "approval_required") => Answer::Approval,
            Some(code) => Answer::Deny(code.to_owned()),
        }
    }

    fn word(&self) -> &'static str {
        match self.recorded() {
            Answer::Allow(_) => "allowed",
            Answer::Approval => "waits for approval",
            Answer::Deny(_) => "denied",
        }
    }

    fn sentence(&self) -> String {
        let Question { kind, application, resource, labels, scopes, method, path, .. } = &self.question;
        let who = if labels.is_empty() {
            application.clone()
        } else {
            format!("{application} as {}", named(labels))
        };
        let what = match kind {
            Kind::Mint => format!("a mandate with {} for {resource}", named(scopes)),
            Kind::Use => format!("{method} {path} on {resource} with {}", named(scopes)),
        };
        let why = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{}: {who}, {what}{why}", self.word())
    }

    fn differs_now(&self) -> Option<bool> {
        self.now.as_ref().map(|now| !now.same(&self.recorded()))
    }
}

fn tell(one: &Explained, out: &mut Out) -> Result<(), Failed> {
    let style = if one.reason.is_none() { Style::Good } else { Style::Bad };
    let title = out.paint(style, &line(&one.sentence()));
    out.line(&title)?;
    let Record { id, request_id, zone_id, occurred_at, .. } = &one.record;
    out.line(&line(&format!("  decision {id} of request {request_id}, zone {zone_id}, {occurred_at}")))?;
    let kept = match (one.in_force, one.steps.is_empty()) {
        (true, _) => "in force",
        (false, false) => "not in force any more",
        (false, true) => "not kept any more, so the rules cannot be told",
    };
    out.line(&format!("  bundle   {} ({kept})", short(&one.digest)))?;
    for step in &one.steps {
        let Step { rule, holds, compared, place } = step;
        let place =
            place.as_ref().map(|place| format!("  [{}:{}]", place.file, place.line)).unwrap_or_default();
        let mark = if *holds { "yes" } else { "NO " };
        let told = line(&format!("  {mark} {rule}: {compared}{place}"));
        let told = if *holds { told } else { out.paint(Style::Bad, &told) };
        out.line(&told)?;
    }
    if let Some(again) = one.again.as_ref().filter(|again| !again.same(&one.recorded())) {
        out.line(&format!(
            "  the record does not hold all it was decided on: asked again, that version says {again}"
        ))?;
    }
    if let Some(remedy) = &one.remedy {
        for missing in &remedy.missing {
            out.line(&line(&format!("  missing  {missing}")))?;
        }
        out.line(&line(&format!("  remedy   {}", remedy.advice)))?;
        if let Some(grant) = &remedy.grant {
            let place =
                grant.place.as_ref().map(|place| format!(", in place of {}:{}", place.file, place.line));
            out.line(&format!("           # in a document of the bundle{}", place.unwrap_or_default()))?;
            grant.toml.lines().try_for_each(|row| out.line(&format!("           {}", visible(row))))?;
        }
    }
    match (&one.now, one.differs_now()) {
        (Some(now), Some(true)) => {
            Ok(out.line(&format!("  now      DIFFERENT: the bundle in force says {now}"))?)
        }
        (Some(now), _) => Ok(out.line(&format!("  now      the same: the bundle in force says {now}"))?),
        (None, _) => Ok(()),
    }
}

/// What came with a request must not end its line.
fn line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

fn summary(one: &Explained) -> Value {
    let Record { id, request_id, zone_id, occurred_at, event_type, .. } = &one.record;
    let path = one.steps.iter().map(|step| {
        json!({
            "rule": step.rule, "holds": step.holds, "compared": step.compared, "place": step.place,
        })
    });
    let outcome = match one.recorded() {
        Answer::Allow(_) => "allow",
        Answer::Approval => "approval",
        Answer::Deny(_) => "deny",
    };
    let grant = one.remedy.as_ref().and_then(|remedy| remedy.grant.as_ref());
    json!({
        "decision_id": id, "request_id": request_id, "zone": zone_id, "occurred_at": occurred_at,
        "event_type": event_type, "outcome": outcome, "reason": one.reason, "sentence": one.sentence(),
        "bundle": { "digest": one.digest, "kept": !one.steps.is_empty(), "in_force": one.in_force },
        "path": path.collect::<Vec<_>>(),
        "again": one.again.as_ref().map(ToString::to_string),
        "missing": one.remedy.as_ref().map(|remedy| &remedy.missing),
        "advice": one.remedy.as_ref().map(|remedy| &remedy.advice),
        "grant": grant.map(|grant| json!({ "toml": grant.toml, "place": grant.place })),
        "now": one.now.as_ref().map(|now| json!({ "answer": now.to_string(), "differs": one.differs_now() })),
    })
}
