//! The plugins that come with the edge. They use the same trait as anyone's.

pub(crate) mod headers;
pub(crate) mod response_scrub;
