//! `[[resources.guards]]`.

use std::sync::Arc;

use super::{NAME, at_most, checked, checked_all};
use crate::guard::GuardMode;
use crate::read::{Placed, PlacedName, Section};
use crate::report::{Place, Problem};
use crate::{limits, names};

/// Keys of one table of `guards`.
pub(crate) const KEYS: [&str; 8] = ["name", "when", "operations", "tools", "mode", "effect", "tier", "show"];

const MODES: [(&str, GuardMode); 2] = [("enforce", GuardMode::Enforce), ("shadow", GuardMode::Shadow)];

/// What a guard does where its condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Deny,
    Approval,
}

const EFFECTS: [(&str, Effect); 2] = [("deny", Effect::Deny), ("approval", Effect::Approval)];

const POINTER: &str = "a JSON pointer, such as `/amount` or `/items/0/price`";

/// What a table says, before its condition is compiled and its operations are looked up.
#[derive(Debug)]
pub(crate) struct DraftGuard {
    pub(crate) name: PlacedName,
    pub(crate) when: Placed<String>,
    pub(crate) operations: Option<Vec<PlacedName>>,
    pub(crate) tools: Option<Vec<PlacedName>>,
    pub(crate) mode: GuardMode,
    /// The tier it asks in, and what is shown; none for one that refuses.
    pub(crate) ask: Option<(PlacedName, Vec<PlacedName>)>,
    pub(crate) place: Place,
}

/// A guard and the tier it asks in.
#[derive(Debug)]
pub(crate) struct DraftAsk {
    pub(crate) guard: Arc<str>,
    pub(crate) tier: PlacedName,
}

/// The tiers that these guards name.
pub(super) fn asks(guards: &[DraftGuard]) -> Vec<DraftAsk> {
    let asks = guards.iter().filter_map(|guard| {
        let (tier, _) = guard.ask.as_ref()?;
        let tier = PlacedName { value: Arc::clone(&tier.value), place: tier.place.clone() };
        Some(DraftAsk { guard: Arc::clone(&guard.name.value), tier })
    });
    asks.collect()
}

/// Reads the guards of one resource.
pub(super) fn read(resource: &Section<'_>) -> Vec<DraftGuard> {
    let mut read: Vec<DraftGuard> = Vec::new();
    for mut guard in resource.sections("guards", "a guard") {
        guard.named(format!("a guard of {}", resource.what()));
        guard.only(&KEYS);
        let name = guard.needed_text("name");
        let name = name.and_then(|text| checked(&guard, "name", text, names::is_name, NAME));
        if let Some(name) = &name {
            guard.named(format!("the guard `{}` of {}", name.value, resource.what()));
        }
        let when = guard.needed_text("when");
        let when = when.map(|text| Placed { value: text.value.to_owned(), place: text.place });
        let any = |text: &str| !text.is_empty() && text.len() <= limits::PATH_BYTES;
        let list = |key| guard.has(key).then(|| checked_all(&guard, key, any, "a name"));
        let (operations, tools) = (list("operations"), list("tools"));
        let mode = if guard.has("mode") { guard.word("mode", &MODES) } else { Some(GuardMode::default()) };
        let ask = read_ask(&guard);
        let (Some(name), Some(when), Some(mode), Some(ask)) = (name, when, mode, ask) else { continue };
        let place = guard.place().clone();
        read.push(DraftGuard { name, when, operations, tools, mode, ask, place });
    }
    at_most(resource, "guards", read.len(), limits::GUARDS);
    read
}

/// Whom the guard asks; the inner option is none for one that refuses, the outer one where that cannot be read.
#[expect(clippy::option_option, reason = "what cannot be read is reported, and is not a guard that refuses")]
fn read_ask(guard: &Section<'_>) -> Option<Option<(PlacedName, Vec<PlacedName>)>> {
    let effect = if guard.has("effect") { guard.word("effect", &EFFECTS)? } else { Effect::Deny };
    if effect == Effect::Deny {
        for key in ["tier", "show"] {
            if let Some(entry) = guard.entry(key) {
                guard.report(
                    Problem::new("guard_effect", &entry.place(), format!("{} asks nobody", guard.what()))
                        .found(format!("`{key}` without `effect = \"approval\"`"))
                        .expected("`tier` and `show` on a guard that asks a person")
                        .hint("add `effect = \"approval\"`, or remove it"),
                );
            }
        }
        return Some(None);
    }
    let tier = guard.needed_text("tier");
    let tier = tier.and_then(|text| checked(guard, "tier", text, names::is_name, NAME));
    let show = checked_all(guard, "show", is_pointer, POINTER);
    at_most(guard, "show", show.len(), limits::SHOWN);
    Some(Some((tier?, show)))
}

/// RFC 6901, but for the empty pointer, which would show everything.
fn is_pointer(text: &str) -> bool {
    let escapes = |text: &str| {
        let mut rest = text.split('~').skip(1);
        rest.all(|after| after.starts_with(['0', '1']))
    };
    text.starts_with('/')
        && text.len() <= limits::PATH_BYTES
        && !text.contains(char::is_control)
        && escapes(text)
}
