//! `[[applications]]`.

use std::sync::Arc;

use super::{Draft, NAME, at_most, checked, checked_all};
use crate::application::{Application, SecretHash};
use crate::read::{Placed, PlacedName, Section};
use crate::report::Problem;
use crate::{limits, names};

/// Keys of one table of `applications`.
pub(crate) const KEYS: [&str; 5] = ["id", "name", "secrets", "traits", "max_concurrent"];

/// Requests in flight when the bundle names no number.
const MAX_CONCURRENT: u32 = 256;

impl Draft {
    pub(super) fn read_applications(&mut self, document: &Section<'_>) {
        for mut section in document.sections("applications", "an application") {
            section.only(&KEYS);
            let id = section.needed_text("id");
            let Some(id) = id.and_then(|id| checked(&section, "id", id, names::is_name, NAME)) else {
                continue;
            };
            section.named(format!("application `{}`", id.value));
            let application = read_application(&section, &id);
            self.applications.push(Placed { value: Arc::new(application), place: id.place });
        }
    }
}

fn read_application(section: &Section<'_>, id: &PlacedName) -> Application {
    let secrets = section.texts("secrets");
    at_most(section, "secrets", secrets.len(), limits::SECRETS);
    let secrets = secrets.into_iter().filter_map(|text| read_secret(section, &text)).collect();
    let traits = checked_all(section, "traits", names::is_trait, "a letter, then letters, digits and `._:-`");
    let most = section.number("max_concurrent", 1..=1_000_000).and_then(|most| u32::try_from(most).ok());
    Application {
        id: id.value.clone(),
        name: section.text("name").map_or(&*id.value, |name| name.value).to_owned(),
        secrets,
        traits: traits.into_iter().map(|text| text.value.to_string()).collect(),
        max_concurrent: most.unwrap_or(MAX_CONCURRENT),
    }
}

/// A text that is no hash may be the secret itself, so it is not repeated.
fn read_secret(section: &Section<'_>, text: &Placed<&str>) -> Option<SecretHash> {
    let hash = SecretHash::parse(text.value);
    if hash.is_none() {
        section.report(
            Problem::new("secret_hash", &text.place, format!("a secret of {} is not a hash", section.what()))
                .found("a text in another form, not shown here")
                .expected("`sha256$<base64url>` or `argon2id$<salt>$<hash>`")
                .hint("never write the secret itself; if you did, replace it"),
        );
    }
    hash
}
