//! `[[resources.guards]]`.

use super::{NAME, at_most, checked, checked_all};
use crate::guard::GuardMode;
use crate::read::{Placed, PlacedName, Section};
use crate::report::Place;
use crate::{limits, names};

/// Keys of one table of `guards`.
pub(crate) const KEYS: [&str; 5] = ["name", "when", "operations", "tools", "mode"];

const MODES: [(&str, GuardMode); 2] = [("enforce", GuardMode::Enforce), ("shadow", GuardMode::Shadow)];

/// What a table says, before its condition is compiled and its operations are looked up.
#[derive(Debug)]
pub(crate) struct DraftGuard {
    pub(crate) name: PlacedName,
    pub(crate) when: Placed<String>,
    pub(crate) operations: Option<Vec<PlacedName>>,
    pub(crate) tools: Option<Vec<PlacedName>>,
    pub(crate) mode: GuardMode,
    pub(crate) place: Place,
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
        let (Some(name), Some(when), Some(mode)) = (name, when, mode) else { continue };
        let place = guard.place().clone();
        read.push(DraftGuard { name, when, operations, tools, mode, place });
    }
    at_most(resource, "guards", read.len(), limits::GUARDS);
    read
}
