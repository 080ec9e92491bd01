//! Documents of a zone that need not be read again while they say the same.

use std::sync::Arc;

use crate::digest::Digest;
use crate::draft::Draft;
use crate::resource::Resource;

/// What one document says, and the resources built of it.
///
/// A zone keeps those of its listed documents, and only a zone that came out whole is there to keep any: nothing was
/// wrong with them. What they say against each other is checked anew each time.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// The document as reports name it: places are part of what is kept.
    pub(crate) file: Arc<str>,
    /// Digest of its text; none for the head, which is always read.
    pub(crate) text: Option<Digest>,
    pub(crate) draft: Arc<Draft>,
    /// One for each resource of the draft; none where its problem was reported.
    pub(crate) resources: Vec<Option<Arc<Resource>>>,
}
