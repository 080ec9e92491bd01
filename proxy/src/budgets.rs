//! Counting against the budgets and rates of a zone: what a call takes, all of it or nothing.
//!
//! Every account of a zone is under one lock, so that a call that counts for several is exact whatever else happens.
//! What a call costs is taken before it; where only the answer tells, the declared most is set aside and settled by
//! it. In a fleet Redis counts, and the accounts here show what it said last.

mod mints;
mod spending;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caracal_policies::{Budget, Measure, Span};
use parking_lot::{Mutex, RwLock};

pub use mints::Mints;
pub(crate) use spending::{Cost, Spending};

/// Accounts of all zones together, about 200 bytes each. With more, calls that need a new one are refused.
const ACCOUNTS: usize = 200_000;
/// How long an account of a life without a known end is kept by a store that cannot see lives, in milliseconds.
pub(crate) const OPEN_LIFE_MS: i64 = 31 * 24 * 3_600 * 1_000;

/// One account that a call counts for.
#[derive(Clone, Debug)]
pub struct Item {
    /// The budget.
    pub budget: Arc<Budget>,
    /// For whom it is counted: a word and an id, such as `session:…`.
    pub subject: Arc<str>,
    /// When the session or delegation ends by itself, in unix milliseconds, if it does.
    pub ends_at: Option<i64>,
}

/// What was taken from one account.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The budget.
    pub budget: Arc<Budget>,
    /// For whom it was counted.
    pub subject: Arc<str>,
    /// How much was taken.
    pub taken: u64,
    /// End of the window it was taken in.
    pub until: i64,
}

/// The first budget that has not enough left for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The budget.
    pub budget: Arc<Budget>,
    /// What is left of it.
    pub remaining: u64,
    /// Seconds until there is enough for a call, or all of it is back; none when it does not come back.
    pub reset_s: Option<u64>,
}

/// Why a call is not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotCharged {
    /// A budget is used up.
    Limited(Box<Limited>),
    /// There is no room for another account.
    Full,
}

/// An account as an operator sees it and the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The zone.
    pub zone: Arc<str>,
    /// [`Budget::key`].
    pub key: Arc<str>,
    /// For whom it is counted.
    pub subject: Arc<str>,
    /// What is used; of a rate, its level.
    pub used: u64,
    /// When it is over, in unix milliseconds.
    pub until: i64,
}

/// The accounts of every zone.
#[derive(Debug)]
pub struct Budgets {
    zones: RwLock<HashMap<Arc<str>, Arc<Mutex<Book>>>>,
    live: AtomicUsize,
    most: usize,
}

/// The accounts of one zone: by budget key, then by subject.
#[derive(Debug, Default)]
struct Book {
    accounts: HashMap<Arc<str>, HashMap<Arc<str>, Account>>,
    swept_at: i64,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    /// What is used. Of a rate, see [`level`].
    used: u64,
    /// When that was, for a rate.
    at: i64,
    /// Over from this unix millisecond on.
    until: i64,
    /// Not stored yet.
    changed: bool,
}

impl Default for Budgets {
    fn default() -> Self {
        Self::with_room(ACCOUNTS)
    }
}

impl Budgets {
    /// Room for so many accounts.
    #[must_use]
    pub fn with_room(most: usize) -> Self {
        Self { zones: RwLock::default(), live: AtomicUsize::new(0), most }
    }

    /// Takes what a call costs from every account, or nothing from any.
    ///
    /// # Errors
    /// The first budget, in the order of `items`, that has not enough left; or that there is no room.
    pub fn charge(&self, zone: &Arc<str>, items: &[Item], now: i64) -> Result<Vec<Charge>, NotCharged> {
        let book = self.book(zone);
        let mut book = book.lock();
        self.reclaim(&mut book, items.len(), now);
        let mut new = 0_usize;
        let mut planned = Vec::with_capacity(items.len());
        for item in items {
            let key: Arc<str> = item.budget.key().into();
            let known = book.find(&key, &item.subject);
            new = new.saturating_add(usize::from(known.is_none()));
            let account = planned_account(item, known.filter(|account| account.until > now), now)?;
            planned.push((key, account));
        }
        self.take_room(new)?;
        let charges = items.iter().zip(planned).map(|(item, (key, account))| {
            book.accounts.entry(key).or_default().insert(Arc::clone(&item.subject), account);
            Charge {
                budget: Arc::clone(&item.budget),
                subject: Arc::clone(&item.subject),
                taken: item.budget.taken_before(),
                until: account.until,
            }
        });
        Ok(charges.collect())
    }

    /// Gives back what was set aside and not used, or takes what was used beyond it. A window that is over is left
    /// alone.
    pub fn settle(&self, zone: &Arc<str>, charge: &Charge, used: u64) {
        let book = self.book(zone);
        let mut book = book.lock();
        let key = charge.budget.key();
        let account = book.accounts.get_mut(&*key).and_then(|of| of.get_mut(&charge.subject));
        if let Some(account) = account.filter(|account| account.until == charge.until) {
            account.used = account.used.saturating_sub(charge.taken).saturating_add(used);
            account.changed = true;
        }
    }

    /// Notes what another place, which counts for the whole fleet, says of an account.
    pub fn heard(&self, zone: &Arc<str>, item: &Item, used: u64, now: i64) {
        let book = self.book(zone);
        let mut book = book.lock();
        let key: Arc<str> = item.budget.key().into();
        self.reclaim(&mut book, 1, now);
        if book.find(&key, &item.subject).is_none() && self.take_room(1).is_err() {
            return;
        }
        let account = Account { used, at: now, until: end(item, now, used), changed: false };
        book.accounts.entry(key).or_default().insert(Arc::clone(&item.subject), account);
    }

    /// Forgets what is over by time, and what `alive` says is over by its subject; the latter, for the store.
    pub fn sweep(&self, now: i64, alive: impl Fn(&str, &str) -> bool) -> Vec<Standing> {
        for (_, book) in self.books() {
            self.forget(&mut book.lock(), |_, account| account.until <= now);
        }
        let ended = self.collect(|_, _| true).into_iter().filter(|row| !alive(&row.zone, &row.subject));
        let ended: Vec<Standing> = ended.collect();
        for row in &ended {
            let book = self.book(&row.zone);
            let mut book = book.lock();
            let subjects = book.accounts.get_mut(&row.key);
            if subjects.is_some_and(|subjects| subjects.remove(&row.subject).is_some()) {
                self.live.fetch_sub(1, Ordering::Relaxed);
            }
        }
        ended
    }

    /// What could not be stored is to be stored again.
    pub fn owe(&self, rows: &[Standing]) {
        for row in rows {
            let book = self.book(&row.zone);
            let mut book = book.lock();
            if let Some(account) = book.accounts.get_mut(&row.key).and_then(|of| of.get_mut(&row.subject)) {
                account.changed = true;
            }
        }
    }

    /// Accounts that are open now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every account that is open now.
    #[must_use]
    pub fn standing(&self, now: i64) -> Vec<Standing> {
        self.collect(|_, account| account.until > now)
    }

    /// The accounts that changed since the last call and outlast the process. Rates do not: they are full again after
    /// moments.
    #[must_use]
    pub fn changed(&self, now: i64) -> Vec<Standing> {
        self.collect(|key, account| {
            let changed = std::mem::take(&mut account.changed);
            changed && account.until > now && !key.contains("/rate-")
        })
    }

    /// Takes stored accounts back.
    pub fn restore(&self, stored: Vec<Standing>, now: i64) {
        for Standing { zone, key, subject, used, until } in stored.into_iter().filter(|row| row.until > now) {
            let book = self.book(&zone);
            let mut book = book.lock();
            let account = Account { used, at: now, until, changed: false };
            if book.accounts.entry(key).or_default().insert(subject, account).is_none() {
                self.live.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn collect(&self, mut which: impl FnMut(&str, &mut Account) -> bool) -> Vec<Standing> {
        let mut all = Vec::new();
        for (zone, book) in self.books() {
            for (key, subjects) in &mut book.lock().accounts {
                let chosen = subjects.iter_mut().filter_map(|(subject, account)| {
                    which(key, account).then(|| Standing {
                        zone: Arc::clone(&zone),
                        key: Arc::clone(key),
                        subject: Arc::clone(subject),
                        used: account.used,
                        until: account.until,
                    })
                });
                all.extend(chosen);
            }
        }
        all
    }

    /// Looks for accounts that are over when there is no room for `new` more; at most once a second.
    fn reclaim(&self, book: &mut Book, new: usize, now: i64) {
        let full = self.len().saturating_add(new) > self.most;
        if full && now >= book.swept_at.saturating_add(1_000) {
            book.swept_at = now;
            self.forget(book, |_, account| account.until <= now);
        }
    }

    fn take_room(&self, new: usize) -> Result<(), NotCharged> {
        let more = |live: usize| live.checked_add(new).filter(|live| new == 0 || *live <= self.most);
        let taken = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_full| NotCharged::Full)
    }

    fn forget(&self, book: &mut Book, over: impl Fn(&str, &Account) -> bool) {
        let mut gone = 0_usize;
        book.accounts.retain(|_, subjects| {
            let before = subjects.len();
            subjects.retain(|subject, account| !over(subject, account));
            gone = gone.saturating_add(before.saturating_sub(subjects.len()));
            !subjects.is_empty()
        });
        self.live.fetch_sub(gone, Ordering::Relaxed);
    }

    fn book(&self, zone: &Arc<str>) -> Arc<Mutex<Book>> {
        if let Some(book) = self.zones.read().get(zone) {
            return Arc::clone(book);
        }
        Arc::clone(self.zones.write().entry(Arc::clone(zone)).or_default())
    }

    fn books(&self) -> Vec<(Arc<str>, Arc<Mutex<Book>>)> {
        self.zones.read().iter().map(|(zone, book)| (Arc::clone(zone), Arc::clone(book))).collect()
    }
}

impl Book {
    fn find(&self, key: &str, subject: &str) -> Option<&Account> {
        self.accounts.get(key)?.get(subject)
    }
}

/// The account after the call, if it has enough left.
fn planned_account(item: &Item, known: Option<&Account>, now: i64) -> Result<Account, NotCharged> {
    let budget = &item.budget;
    let (used, at) = known.map_or((0, now), |account| (account.used, account.at));
    let now = now.max(at);
    let used = level(budget, used, now.saturating_sub(at));
    let after = used.saturating_add(cost(budget));
    if after > capacity(budget) {
        return Err(NotCharged::Limited(Box::new(limited(item, used, now))));
    }
    let until = match (known, budget.span) {
        (Some(account), Span::Window { .. } | Span::Life) => account.until,
        _ => end(item, now, after),
    };
    Ok(Account { used: after, at: now, until, changed: true })
}

/// What a refused caller is told about an account of which `used` is used.
pub(crate) fn limited(item: &Item, used: u64, now: i64) -> Limited {
    let budget = &item.budget;
    let left = capacity(budget).saturating_sub(used);
    let (remaining, wait_ms) = match budget.span {
        Span::Rate { seconds, .. } => {
            let short = cost(budget).saturating_sub(left);
            (
                left.checked_div(seconds.saturating_mul(1_000)).unwrap_or(left),
                Some(short.div_ceil(budget.limit.max(1))),
            )
        }
        Span::Window { .. } => {
            let wait = end(item, now, used).saturating_sub(now);
            (left, Some(u64::try_from(wait).unwrap_or_default()))
        }
        Span::Life => (left, None),
    };
    let reset_s = wait_ms.map(|wait| wait.div_ceil(1_000).max(1));
    Limited { budget: Arc::clone(budget), remaining, reset_s }
}

/// What a call takes, in the unit of the account. A rate counts in calls times milliseconds of its span, so that whole
/// numbers are exact: a call adds the milliseconds, and each millisecond takes the calls away.
pub(crate) fn cost(budget: &Budget) -> u64 {
    match budget.span {
        Span::Rate { seconds, .. } => seconds.saturating_mul(1_000),
        Span::Window { .. } | Span::Life => budget.taken_before(),
    }
}

/// The most an account may hold, in its unit.
pub(crate) fn capacity(budget: &Budget) -> u64 {
    match budget.span {
        Span::Rate { seconds, burst } => burst.saturating_mul(seconds.saturating_mul(1_000)),
        Span::Window { .. } | Span::Life => budget.limit,
    }
}

/// What is left of `used` after `passed` milliseconds.
fn level(budget: &Budget, used: u64, passed: i64) -> u64 {
    let passed = u64::try_from(passed).unwrap_or_default();
    if budget.is_rate() { used.saturating_sub(passed.saturating_mul(budget.limit)) } else { used }
}

/// When an account is over that holds `used`, in unix milliseconds.
pub(crate) fn end(item: &Item, now: i64, used: u64) -> i64 {
    match item.budget.span {
        Span::Window { seconds } => {
            let window = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
            now.saturating_sub(now.rem_euclid(window)).saturating_add(window)
        }
        Span::Life => item.ends_at.unwrap_or(i64::MAX),
        Span::Rate { .. } => {
            let drained = used.div_ceil(item.budget.limit.max(1));
            now.saturating_add(i64::try_from(drained).unwrap_or(i64::MAX)).max(now.saturating_add(1))
        }
    }
}

/// What is used of a budget as people count it, given what its account holds.
pub(crate) fn used_of(budget: &Budget, used: u64) -> u64 {
    match budget.span {
        Span::Rate { seconds, .. } => used.div_ceil(seconds.saturating_mul(1_000).max(1)),
        Span::Window { .. } | Span::Life => used,
    }
}

/// Whether something is set aside that the end of the call settles.
pub(crate) const fn settles(measure: &Measure) -> bool {
    !matches!(measure, Measure::Calls)
}

#[cfg(test)]
mod tests;
