//! Where the key set comes from.

use std::fmt;
use std::pin::Pin;

/// A running fetch: the bytes of the document, or why there are none.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchFailed>> + Send>>;

/// Fetches a key set over HTTP.
///
/// Contract: one GET without following redirects, a 200 only, at most
/// [`MAX_JWKS_BYTES`](crate::MAX_JWKS_BYTES), over by itself within a few seconds: requests wait for it. At most
/// one fetch runs at a time. A failure is not reported anywhere else, so this is the place to log it.
pub trait JwksSource: Send + Sync + fmt::Debug + 'static {
    /// Fetches the document at `url`, which is https, or http on a loopback host unless the settings allow any.
    fn fetch(&self, url: &str) -> Fetching;
}

/// Why a fetch gave no document; for a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key set could not be fetched: {0}")]
pub struct FetchFailed(String);

impl FetchFailed {
    /// A failure with its reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
