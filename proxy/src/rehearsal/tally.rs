//! What would be different, counted and grouped: bounded, however much comes.

use std::collections::{BTreeMap, VecDeque};

use caracal_policies::{RulePlaces, Zone};
use serde_json::{Map, Value, json};

use super::Counts;
use crate::question::steps::{self, Step};
use crate::question::{Answer, Compared, Kind, Question, Recorded, Said};

/// Kinds of differences that are told apart.
const MOST_GROUPS: usize = 256;
/// Request ids that are kept of each.
const MOST_REQUESTS: usize = 5;

/// Decisions of one bundle as another would have made them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Counts,
    same: u64,
    other_reason: u64,
    not_comparable: BTreeMap<&'static str, u64>,
    groups: BTreeMap<Key, Group>,
    /// Differences of kinds that came after the last that was told apart.
    ungrouped: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    application: String,
    resource: String,
    kind: &'static str,
    /// The scopes of a mint, the operation of a use.
    what: String,
    from: String,
    to: String,
}

#[derive(Debug)]
struct Group {
    count: u64,
    requests: VecDeque<String>,
    example: Question,
    from: Answer,
    to: Answer,
}

impl Tally {
    /// Counts what `other` answers to a decision; nothing when the record is of none. `given` is the zone that made it,
    /// where that is at hand.
    pub(crate) fn add(
        &mut self,
        given: Option<&Zone>,
        other: &Zone,
        said: Said<'_>,
        request: &str,
    ) -> Option<Compared> {
        let recorded = match Recorded::read(said)? {
            Ok(recorded) => recorded,
            Err(why) => return Some(self.leave_out(Compared::Not(why))),
        };
        let compared = recorded.compare(given, other);
        match &compared {
            Compared::Not(_) => return Some(self.leave_out(compared)),
            Compared::Same => bump(&mut self.same),
            Compared::Different { from, to } => {
                match to.breadth().cmp(&from.breadth()) {
                    std::cmp::Ordering::Greater => bump(&mut self.counts.newly_allowed),
                    std::cmp::Ordering::Less => bump(&mut self.counts.newly_denied),
                    std::cmp::Ordering::Equal => bump(&mut self.other_reason),
                }
                let asked = if to.code().is_some() { other } else { given.unwrap_or(other) };
                if let Some(question) = recorded.question(asked) {
                    self.group(question, given.unwrap_or(other), (from, to), request);
                }
            }
        }
        bump(&mut self.counts.compared);
        Some(compared)
    }

    fn leave_out(&mut self, compared: Compared) -> Compared {
        if let Compared::Not(why) = compared {
            bump(self.not_comparable.entry(why.word()).or_default());
        }
        compared
    }

    fn group(&mut self, question: &Question, zone: &Zone, (from, to): (&Answer, &Answer), request: &str) {
        let key = Key {
            application: question.application.clone(),
            resource: question.resource.clone(),
            kind: if question.kind == Kind::Mint { "mint" } else { "use" },
            what: question.what(zone),
            from: from.reasoned(),
            to: to.reasoned(),
        };
        if !self.groups.contains_key(&key) && self.groups.len() >= MOST_GROUPS {
            return bump(&mut self.ungrouped);
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            count: 0,
            requests: VecDeque::new(),
            example: question.clone(),
            from: from.clone(),
            to: to.clone(),
        });
        bump(&mut group.count);
        if group.requests.len() >= MOST_REQUESTS {
            group.requests.pop_front();
        }
        group.requests.push_back(request.to_owned());
    }

    /// The numbers that a promotion depends on.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether anything would be different.
    pub(crate) const fn differs(&self) -> bool {
        self.counts.compared > self.same
    }

    /// All of it; the groups with most decisions first, each with the rule that decides differently.
    pub(crate) fn report(
        &self,
        given: Option<&Zone>,
        other: (&Zone, Option<&RulePlaces>),
    ) -> Map<String, Value> {
        let mut groups: Vec<(&Key, &Group)> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        let groups = groups.into_iter().map(|(key, group)| {
            let Key { application, resource, kind, what, from, to } = key;
            let grounds = group
                .grounds(given, other)
                .map(|step| json!({ "rule": step.rule, "compared": step.compared, "place": step.place }));
            json!({
                "application": application, "resource": resource, "kind": kind, "what": what, "from": from,
                "to": to, "count": group.count, "requests": group.requests, "grounds": grounds,
            })
        });
        let Counts { compared, newly_allowed, newly_denied } = self.counts;
        let report = json!({
            "compared": compared, "same": self.same, "newly_allowed": newly_allowed,
            "newly_denied": newly_denied, "other_reason": self.other_reason,
            "not_comparable": self.not_comparable, "ungrouped": self.ungrouped,
            "groups": groups.collect::<Vec<_>>(),
        });
        if let Value::Object(report) = report { report } else { Map::new() }
    }
}

impl Group {
    /// The rule that refuses: in the other bundle, or in the given one where the other allows.
    fn grounds(&self, given: Option<&Zone>, (other, places): (&Zone, Option<&RulePlaces>)) -> Option<Step> {
        let reason = |answer: &Answer| match answer {
            Answer::Allow(_) => None,
            Answer::Approval => Some("approval_required".to_owned()),
            Answer::Deny(code) => Some(code.clone()),
        };
        let wider = self.to.breadth() > self.from.breadth();
        let mut path = if wider {
            steps::path(&self.example, Some(&reason(&self.from)?), given?, None)
        } else {
            steps::path(&self.example, Some(&reason(&self.to)?), other, places)
        };
        path.pop()
    }
}

fn bump(count: &mut u64) {
    *count = count.saturating_add(1);
}
