//! Secrets as an operator sees them: which values are in force, since when, and when which was used last.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Operate, blocking};
use crate::control::Failure;
use crate::ledger::uses::{Use, Uses, secret_uses};
use crate::state::iso;

/// Every value in force, never the value itself.
pub(super) async fn list(operate: &Operate) -> Result<Value, Failure> {
    let uses = uses(operate).await?;
    let snapshot = operate.app.snapshot.load();
    let listed = snapshot.secrets.listed().map(|one| {
        let used = uses.get(&format!("{}/{}", one.name, one.key)).and_then(|seen| seen.get(one.fingerprint));
        json!({
            "name": one.name, "key": one.key, "fingerprint": one.fingerprint, "demo": one.demo,
            "file": one.file, "in_force_since_at": one.since, "last_used_at": used.map(|used| used.last_at),
        })
    });
    Ok(json!({ "generation": snapshot.secrets_generation, "secrets": listed.collect::<Vec<_>>() }))
}

/// Whether an earlier value of a secret may be deleted where it came from.
pub(super) async fn rotate_check(
    operate: &Operate,
    secret: &str,
    old: Option<&str>,
    grace_ms: i64,
) -> Result<Value, Failure> {
    let uses = uses(operate).await?;
    let snapshot = operate.app.snapshot.load();
    let spelled = |name: &str, key: &str| format!("{name}/{key}");
    let mut found =
        snapshot.secrets.listed().filter(|one| one.name == secret || spelled(one.name, one.key) == secret);
    let (one, more) = (found.next(), found.next());
    let one = one.ok_or_else(|| {
        Failure::new("unknown_secret", format!("there is no secret `{secret}`; see `caracal secrets list`"))
    })?;
    if more.is_some() {
        let message = format!("`{secret}` has several keys; name one as `{secret}/KEY`");
        return Err(Failure::new("secret_key_needed", message));
    }
    let name = spelled(one.name, one.key);
    let seen = uses.get(&name).cloned().unwrap_or_default();
    let question = Question {
        now: operate.app.clock.now(),
        grace_ms,
        refused: operate.app.reloader.standing().secrets_rejected,
        since: one.since,
        current: one.fingerprint,
        old,
        seen: &seen,
    };
    let verdict = question.verdict();
    let row = |(fingerprint, used): (&String, &Use)| {
        json!({
            "fingerprint": fingerprint, "in_force": fingerprint == one.fingerprint, "calls": used.calls,
            "last_used_at": used.last_at, "last_upstream_status": used.last_status,
        })
    };
    Ok(json!({
        "secret": name, "may_delete": verdict.is_ok(), "why": verdict.unwrap_or_else(|why| why),
        "generation": snapshot.secrets_generation, "in_force": one.fingerprint, "in_force_since_at": one.since,
        "seen": seen.iter().map(row).collect::<Vec<_>>(),
    }))
}

async fn uses(operate: &Operate) -> Result<Uses, Failure> {
    let ledger = &operate.app.ledger;
    ledger.flush().await.map_err(|error| Failure::new("ledger_unavailable", error.to_string()))?;
    let dir = ledger.dir().to_owned();
    blocking(move || secret_uses(&dir)).await
}

/// May the earlier value be deleted?
struct Question<'q> {
    now: i64,
    grace_ms: i64,
    /// Whether the files say something that is not in force.
    refused: bool,
    since: i64,
    current: &'q str,
    /// The value that is meant; every earlier one when left out.
    old: Option<&'q str>,
    seen: &'q BTreeMap<String, Use>,
}

impl Question<'_> {
    /// Yes or no, and why. What is not known is a no: a value deleted too early fails calls.
    fn verdict(&self) -> Result<String, String> {
        let settled = self.since.saturating_add(self.grace_ms);
        let others = || self.seen.iter().filter(|(fingerprint, _)| *fingerprint != self.current);
        if self.refused {
            return Err("the secrets file was refused, so that what is in force is from before; \
                        `caracal reload` says why"
                .to_owned());
        }
        if self.old == Some(self.current) {
            return Err("that value is the one in force: no newer one has arrived here".to_owned());
        }
        if self.old.is_none() && others().next().is_none() {
            return Err(
                "no call with an earlier value is recorded here: if you have just changed it, the new one \
                        may not have arrived; name the earlier fingerprint with --old"
                    .to_owned(),
            );
        }
        if self.now < settled {
            let seconds = settled.saturating_sub(self.now).saturating_add(999) / 1_000;
            return Err(format!(
                "calls begun before the change may still use an earlier value; ask again in {seconds} s"
            ));
        }
        let meant = others().filter(|(fingerprint, _)| self.old.is_none_or(|old| *old == **fingerprint));
        if let Some((fingerprint, used)) =
            meant.filter(|(_, used)| used.last_at > settled).max_by_key(|(_, used)| used.last_at)
        {
            return Err(format!(
                "`{fingerprint}` was used at {}, after `{}` came into force at {}",
                iso(used.last_at),
                self.current,
                iso(self.since)
            ));
        }
        match self.seen.get(self.current) {
            Some(Use { last_status: Some(401), .. }) => Err(
                "the upstream answered 401 when the value in force was used last: keep the earlier one until it accepts \
                 the new one"
                    .to_owned(),
            ),
            Some(_) => Ok("no earlier value was used since the one in force came into force".to_owned()),
            None => Ok("no earlier value was used since the one in force came into force, and that one was not used yet \
                        either: make a call first if you want to see it accepted"
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(uses: &[(&str, i64, u64)]) -> BTreeMap<String, Use> {
        let one = |last_at, status| Use { calls: 1, last_at, last_status: Some(status) };
        uses.iter().map(|(print, at, status)| ((*print).to_owned(), one(*at, *status))).collect()
    }

    #[test]
    fn an_earlier_value_may_go_when_the_new_one_is_in_force_and_alone() {
        let both = [("new", 900_000, 200), ("old", 400_000, 200)];
        // What was seen, the value that is meant, whether files were refused, now, and words of the answer.
        type Case<'c> = (&'c [(&'c str, i64, u64)], Option<&'c str>, bool, i64, Result<&'c str, &'c str>);
        let cases: [Case<'_>; 12] = [
            (&both, None, false, 1_000_000, Ok("no earlier value")),
            (&both, Some("old"), false, 1_000_000, Ok("no earlier value")),
            (&both[1..], None, false, 1_000_000, Ok("not used yet")),
            (&both, None, true, 1_000_000, Err("refused")),
            (&both, Some("new"), false, 1_000_000, Err("the one in force")),
            (&both[..1], None, false, 1_000_000, Err("no call with an earlier value")),
            (&[], None, false, 1_000_000, Err("no call with an earlier value")),
            (&both[..1], Some("old"), false, 1_000_000, Ok("no earlier value")),
            (&both, None, false, 559_000, Err("ask again in 1 s")),
            (
                &[("new", 900_000, 200), ("old", 560_001, 200)],
                None,
                false,
                1_000_000,
                Err("`old` was used at"),
            ),
            (&[("new", 900_000, 200), ("old", 560_000, 200)], None, false, 1_000_000, Ok("no earlier value")),
            (&[("new", 900_000, 401), ("old", 400_000, 200)], None, false, 1_000_000, Err("401")),
        ];
        for (number, (uses, old, refused, now, expected)) in cases.into_iter().enumerate() {
            let seen = seen(uses);
            let question =
                Question { now, grace_ms: 60_000, refused, since: 500_000, current: "new", old, seen: &seen };
            match (question.verdict(), expected) {
                (Ok(why), Ok(words)) | (Err(why), Err(words)) => {
                    assert!(why.contains(words), "{number}: {why}")
                }
                (verdict, _) => panic!("{number}: {verdict:?}"),
            }
        }
    }
}
