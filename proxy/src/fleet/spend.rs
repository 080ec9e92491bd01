//! Budgets of the whole fleet: counted in Redis, in one script that takes from every account or from none.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest;
use caracal_policies::{Budget, Span};
use redis::Script;

use super::link::{Answer, Commands, EPOCH_KEY, Found, PRIMARY_AND_EPOCH};
use super::{Fleet, FleetError, fresh_epoch};
use crate::budgets::{self, Budgets, Charge, Item, Limited, OPEN_LIFE_MS};

/// How much longer Redis keeps an account than it counts: nodes' clocks differ.
const KEPT_LONGER_MS: i64 = 60_000;

/// KEYS: epoch, accounts. ARGV: an epoch to begin if need be, the time, and for each account what is taken, the most
/// it may hold, what goes away in a millisecond, and the milliseconds to keep it.
static SPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PRIMARY_AND_EPOCH}{}",
        r"
local asked, after, times = tonumber(ARGV[2]), {}, {}
for i = 1, #KEYS - 1 do
  local base = 2 + (i - 1) * 4
  local held = redis.call('HMGET', KEYS[i + 1], 'used', 'at')
  local used, now = tonumber(held[1] or '0'), asked
  local at = tonumber(held[2] or ARGV[2])
  if at > now then now = at end
  used = math.max(0, used - (now - at) * tonumber(ARGV[base + 3]))
  if used + tonumber(ARGV[base + 1]) > tonumber(ARGV[base + 2]) then
    return {'short', epoch, begun, {i - 1, used}}
  end
  after[i], times[i] = used + tonumber(ARGV[base + 1]), now
end
for i = 1, #KEYS - 1 do
  local key = KEYS[i + 1]
  redis.call('HSET', key, 'used', string.format('%.0f', after[i]), 'at', string.format('%.0f', times[i]))
  redis.call('PEXPIRE', key, ARGV[2 + (i - 1) * 4 + 4])
end
return {'taken', epoch, begun, after}
"
    ))
});

/// KEYS: accounts. ARGV: what is added to each. One that is gone stays gone.
static SETTLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for i = 1, #KEYS do
  local used = redis.call('HGET', KEYS[i], 'used')
  if used then
    redis.call('HSET', KEYS[i], 'used', string.format('%.0f', math.max(0, tonumber(used) + tonumber(ARGV[i]))))
  end
end
return 1
",
    )
});

/// Why the fleet does not let a call through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotSpent {
    /// A budget is used up.
    Limited(Box<Limited>),
    /// Nobody can tell now.
    Unavailable,
}

impl Fleet {
    /// Takes what a call costs from every account, or nothing from any, and notes in `seen` what they hold then.
    ///
    /// # Errors
    /// [`NotSpent`]. After `Unavailable` it may or may not have been taken.
    pub(crate) async fn spend(
        &self,
        seen: &Budgets,
        zone: &Arc<str>,
        items: &[Item],
        now: i64,
    ) -> Result<Vec<Charge>, NotSpent> {
        let link = self.commands().map_err(|_away| NotSpent::Unavailable)?;
        let mut numbers = (String::new(), Vec::new());
        let outcome = Commands::clone(&link).spend(zone, items, now).await.map(|(answer, found, used)| {
            numbers = (found, used);
            answer
        });
        self.heard(&link, outcome).map_err(|_away| NotSpent::Unavailable)?;
        let (found, used) = numbers;
        match (found.as_str(), used.as_slice()) {
            ("taken", used) => {
                for (item, used) in items.iter().zip(used) {
                    seen.heard(zone, item, *used, now);
                }
                let charges = items.iter().map(|item| Charge {
                    budget: Arc::clone(&item.budget),
                    subject: Arc::clone(&item.subject),
                    taken: item.budget.taken_before(),
                    until: budgets::end(item, now, 0),
                });
                Ok(charges.collect())
            }
            ("short", [at, used]) => {
                let item = usize::try_from(*at).ok().and_then(|at| items.get(at));
                let item = item.ok_or(NotSpent::Unavailable)?;
                seen.heard(zone, item, *used, now);
                Err(NotSpent::Limited(Box::new(budgets::limited(item, *used, now))))
            }
            _ => Err(NotSpent::Unavailable),
        }
    }

    /// Settles what calls took. Not waited for: what does not arrive stays taken.
    pub(crate) fn settle(self: &Arc<Self>, zone: &Arc<str>, settled: Vec<(Charge, u64)>) {
        let (Ok(link), Ok(runtime)) = (self.commands(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let zone = Arc::clone(zone);
        runtime.spawn(async move {
            let mut call = SETTLE.prepare_invoke();
            for (charge, used) in &settled {
                call.key(account(&zone, &charge.budget, &charge.subject, charge.until));
                let (used, taken) = (i128::from(*used), i128::from(charge.taken));
                call.arg(used.saturating_sub(taken).to_string());
            }
            let mut commands = Commands::clone(&link);
            if let Err(error) = call.invoke_async::<i64>(&mut commands.0).await {
                tracing::warn!(%error, "what calls did not use of their budgets could not be given back");
            }
        });
    }
}

impl Commands {
    async fn spend(
        &mut self,
        zone: &str,
        items: &[Item],
        now: i64,
    ) -> Result<(Answer, String, Vec<u64>), FleetError> {
        let mut call = SPEND.key(EPOCH_KEY);
        for item in items {
            call.key(account(zone, &item.budget, &item.subject, budgets::end(item, now, 0)));
        }
        call.arg(fresh_epoch()).arg(now);
        for item in items {
            let budget = &item.budget;
            let drain = if budget.is_rate() { budget.limit } else { 0 };
            call.arg(budgets::cost(budget)).arg(budgets::capacity(budget)).arg(drain).arg(kept(item, now));
        }
        let (found, epoch, begun, used): (String, String, String, Vec<u64>) =
            call.invoke_async(&mut self.0).await?;
        Ok((Answer { found: Found::Seen, epoch, begun: begun == "begun" }, found, used))
    }
}

/// Milliseconds for which Redis keeps an account.
fn kept(item: &Item, now: i64) -> i64 {
    let end = match item.budget.span {
        Span::Rate { .. } => budgets::end(item, now, budgets::capacity(&item.budget)),
        Span::Window { .. } => budgets::end(item, now, 0),
        Span::Life => item.ends_at.unwrap_or_else(|| now.saturating_add(OPEN_LIFE_MS)),
    };
    end.saturating_sub(now).max(0).saturating_add(KEPT_LONGER_MS)
}

/// The key of an account. Each window has one of its own, so that all nodes agree which it is.
fn account(zone: &str, budget: &Budget, subject: &str, until: i64) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    let key = budget.key();
    for part in [zone, key.as_str(), subject] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    if let Span::Window { .. } = budget.span {
        hash.update(&until.to_be_bytes());
    }
    format!("caracal:edge:budget:{}", hex::encode(hash.finish()))
}
