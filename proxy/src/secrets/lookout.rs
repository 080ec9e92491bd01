//! What looks for injected secrets in the answers of upstreams.

use std::fmt;
use std::sync::{Arc, OnceLock};

use caracal_plugins::Scrubber;

/// Shortest secret that responses are searched for: shorter ones stand in ordinary values too.
const MIN_BYTES: usize = 6;

/// Looks for these secrets; nothing when all of them are too short. Cost: every form of every secret is made.
pub(crate) fn scrubber<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Option<Arc<Scrubber>> {
    let secrets = secrets.into_iter().map(str::as_bytes);
    let secrets: Vec<&[u8]> = secrets.filter(|secret| secret.len() >= MIN_BYTES).collect();
    (!secrets.is_empty()).then(|| Arc::new(Scrubber::new(&secrets)))
}

/// What looks for one secret that many requests use: made with the first, wiped with the secret.
#[derive(Default)]
pub(crate) struct Lookout(OnceLock<Option<Arc<Scrubber>>>);

impl Lookout {
    /// For `secret`, which is the same each time.
    pub(crate) fn of(&self, secret: &str) -> Option<Arc<Scrubber>> {
        self.0.get_or_init(|| scrubber([secret])).clone()
    }
}

impl fmt::Debug for Lookout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookout")
    }
}
