//! `[[budgets]]` and `[[rates]]`.

use super::{Draft, NAME, checked};
use crate::budget::{Budget, BudgetPer, Measure, Span, UnitsFrom};
use crate::read::{PlacedName, Section};
use crate::report::{Place, Problem};
use crate::{limits, names};

/// Keys of one table of `budgets`.
pub(crate) const BUDGET_KEYS: [&str; 12] = [
    "name",
    "per",
    "application",
    "resource",
    "calls",
    "bytes",
    "units",
    "units_pointer",
    "units_pointers",
    "units_header",
    "max_per_call",
    "window_seconds",
];
/// Keys of one table of `rates`.
pub(crate) const RATE_KEYS: [&str; 7] =
    ["name", "per", "application", "resource", "calls", "window_seconds", "burst"];

/// The longest window of a budget, a year, and of a rate, a day, in seconds.
const LONGEST_WINDOW: u64 = 366 * 24 * 3_600;
const LONGEST_RATE: u64 = 24 * 3_600;
/// The most calls of a rate.
const MOST_AT_ONCE: u64 = 1_000_000;
/// Numbers of a sum, and places where one of them may be.
const SUMMANDS: usize = 8;
const PLACES: usize = 4;
/// Bytes of a JSON pointer.
const POINTER_BYTES: usize = 256;

/// A budget with everything in it that needs a look at the rest of the bundle.
#[derive(Debug)]
pub(crate) struct DraftBudget {
    pub(crate) budget: Budget,
    pub(crate) place: Place,
    pub(crate) application: Option<PlacedName>,
    pub(crate) resource: Option<PlacedName>,
}

impl Draft {
    pub(super) fn read_budgets(&mut self, document: &Section<'_>) {
        for mut section in document.sections("budgets", "a budget") {
            section.only(&BUDGET_KEYS);
            self.read_budget(&mut section, "budget", |section, per| {
                let (measure, limit) = read_measure(section)?;
                Some((measure, limit, read_span(section, per)?))
            });
        }
        for mut section in document.sections("rates", "a rate") {
            section.only(&RATE_KEYS);
            self.read_budget(&mut section, "rate", |section, _per| {
                section.needed("calls")?;
                let calls = section.number("calls", 1..=MOST_AT_ONCE)?;
                let seconds = window(section, LONGEST_RATE).ok()?.unwrap_or(1);
                let burst = match section.has("burst") {
                    true => section.number("burst", 1..=MOST_AT_ONCE)?,
                    false => calls,
                };
                Some((Measure::Calls, calls, Span::Rate { seconds, burst }))
            });
        }
    }

    fn read_budget(
        &mut self,
        section: &mut Section<'_>,
        what: &str,
        rest: impl FnOnce(&Section<'_>, BudgetPer) -> Option<(Measure, u64, Span)>,
    ) {
        let name = section.needed_text("name");
        let name = name.and_then(|name| checked(section, "name", name, names::is_budget, BUDGET_NAME));
        let Some(name) = name else { return };
        section.named(format!("{what} `{}`", name.value));
        let application = selector(section, "application");
        let resource = selector(section, "resource");
        section.needed("per");
        let Some(per) = section.word("per", &PER) else { return };
        let Some((measure, limit, span)) = rest(section, per) else { return };
        let budget =
            Budget { name: name.value, per, application: None, resource: None, measure, limit, span };
        self.budgets.push(DraftBudget { budget, place: name.place, application, resource });
    }
}

fn selector(section: &Section<'_>, key: &str) -> Option<PlacedName> {
    section.text(key).and_then(|text| checked(section, key, text, names::is_name, NAME))
}

/// The one measure a budget has, and how much of it.
fn read_measure(section: &Section<'_>) -> Option<(Measure, u64)> {
    let named: Vec<&str> = ["calls", "bytes", "units"].into_iter().filter(|key| section.has(key)).collect();
    let [measure] = named.as_slice() else {
        section.report(
            Problem::new(
                "budget_measure",
                section.place(),
                format!("{} counts not one thing", section.what()),
            )
            .found(if named.is_empty() { "nothing".to_owned() } else { named.join(", ") })
            .expected("one of `calls`, `bytes` and `units`")
            .hint("write one budget for each of them"),
        );
        return None;
    };
    let limit = section.number(measure, 1..=limits::COUNTED)?;
    let own: &[&str] = match *measure {
        "calls" => &[],
        "bytes" => &["max_per_call"],
        _ => &OF_UNITS,
    };
    let stray = OF_UNITS;
    if let Some(stray) = stray.into_iter().find(|key| section.has(key) && !own.contains(key)) {
        misplaced(section, stray, &format!("no `{stray}` beside `{measure}`"), "remove it");
        return None;
    }
    if *measure == "calls" {
        return Some((Measure::Calls, limit));
    }
    section.needed("max_per_call")?;
    let max_per_call = section.number("max_per_call", 1..=limit)?;
    if *measure == "bytes" {
        return Some((Measure::Bytes { max_per_call }, limit));
    }
    let from = read_from(section)?;
    Some((Measure::Units { max_per_call, from }, limit))
}

/// Where the upstream says what a call cost.
fn read_from(section: &Section<'_>) -> Option<UnitsFrom> {
    let named: Vec<&str> = SAID_BY.into_iter().filter(|key| section.has(key)).collect();
    match named.as_slice() {
        ["units_pointer"] => {
            let pointer = section.text("units_pointer")?;
            let pointer = checked(section, "units_pointer", pointer, is_pointer, POINTER)?;
            Some(UnitsFrom::Pointer(pointer.value))
        }
        ["units_pointers"] => read_sum(section),
        ["units_header"] => {
            let name = section.text("units_header")?;
            let name =
                checked(section, "units_header", name, names::is_token, "the name of a response header")?;
            Some(UnitsFrom::Header(name.value.to_ascii_lowercase().into()))
        }
        _ => {
            let expected = "one of `units_pointer`, `units_pointers` and `units_header` beside `units`";
            misplaced(section, "units", expected, "say where the upstream tells what a call cost");
            None
        }
    }
}

/// Each item a pointer, or several of which the first that is there counts.
fn read_sum(section: &Section<'_>) -> Option<UnitsFrom> {
    let (key, expected) = ("units_pointers", "an array of JSON pointers");
    let entry = section.entry(key)?;
    let items = entry.items(key, expected);
    if entry.kind() != "an array" {
        return None;
    }
    let mut parts = Vec::with_capacity(items.len());
    for item in items {
        let places = if item.kind() == "an array" { item.items(key, expected) } else { vec![item] };
        if !(1..=PLACES).contains(&places.len()) {
            return too_many(section, key);
        }
        let read = places.iter().map(|place| checked(section, key, place.text(key)?, is_pointer, POINTER));
        parts.push(read.map(|place| place.map(|place| place.value)).collect::<Option<Vec<_>>>()?);
    }
    if (1..=SUMMANDS).contains(&parts.len()) { Some(UnitsFrom::Sum(parts)) } else { too_many(section, key) }
}

fn too_many<T>(section: &Section<'_>, key: &str) -> Option<T> {
    let expected = format!("1 to {SUMMANDS} numbers, each with 1 to {PLACES} JSON pointers where it may be");
    misplaced(section, key, &expected, "write one pointer for each number of the sum");
    None
}

fn read_span(section: &Section<'_>, per: BudgetPer) -> Option<Span> {
    match window(section, LONGEST_WINDOW).ok()? {
        Some(seconds) => Some(Span::Window { seconds }),
        None if matches!(per, BudgetPer::Session | BudgetPer::Delegation) => Some(Span::Life),
        None => {
            let expected =
                format!("`window_seconds`, because a budget per {} has no end of its own", per.word());
            misplaced(section, "per", &expected, "add `window_seconds = 3600`");
            None
        }
    }
}

/// The window, none where there is no such key; an error where it was reported.
fn window(section: &Section<'_>, longest: u64) -> Result<Option<u64>, ()> {
    match section.has("window_seconds") {
        true => section.number("window_seconds", 1..=longest).map(Some).ok_or(()),
        false => Ok(None),
    }
}

fn misplaced(section: &Section<'_>, key: &str, expected: &str, hint: &str) {
    let place = section.entry(key).map_or_else(|| section.place().clone(), |entry| entry.place());
    section.report(
        Problem::new("budget_shape", &place, format!("{} does not say what it needs", section.what()))
            .found(format!("`{key}`"))
            .expected(expected)
            .hint(hint),
    );
}

fn is_pointer(text: &str) -> bool {
    text.len() <= POINTER_BYTES && text.starts_with('/') && !text.chars().any(char::is_control)
}

/// Keys beside `units`, and those of them that say where its number is.
const OF_UNITS: [&str; 4] = ["max_per_call", "units_pointer", "units_pointers", "units_header"];
const SAID_BY: [&str; 3] = ["units_pointer", "units_pointers", "units_header"];

const POINTER: &str = "a JSON pointer such as `/usage/total_tokens`";

const PER: [(&str, BudgetPer); 4] = [
    ("application", BudgetPer::Application),
    ("resource", BudgetPer::Resource),
    ("session", BudgetPer::Session),
    ("delegation", BudgetPer::Delegation),
];

const BUDGET_NAME: &str = "1 to 64 of `A-Z a-z 0-9 . _ -`";
