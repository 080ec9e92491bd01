//! What the loader hands in: the text of a bundle, and what this process lets its zone use.

/// One file of a bundle.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Relative to the bundle root, with `/` between folders.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// The text of one zone's bundle: a folder with a `zone.toml`, or one single file.
#[derive(Debug, Clone)]
pub struct BundleSource {
    /// How reports name the bundle, such as `bundles/quickstart` or `bundles/quickstart.toml`.
    pub root: String,
    /// Every file found under the root. Only `.toml` and `.rego` files count; others are not part of the bundle.
    pub files: Vec<SourceFile>,
}

/// The hosts and path prefixes `caracal.toml` gave the zone. A resource may claim nothing else.
#[derive(Debug, Clone, Default)]
pub struct Assigned {
    /// Lower-case host names without a port.
    pub hosts: Vec<String>,
    /// Path prefixes such as `/echo`; a resource may claim one or anything beneath it. `/` gives every path.
    pub prefixes: Vec<String>,
}
