//! Caps on what a bundle may hold and on what a request may make us do, checked before the work starts.
//!
//! The sizes leave room for 10,000 resources and 100,000 granted scopes in one zone, which take about 8 MiB of text.

/// Bytes of one file.
pub(crate) const FILE_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one document in Rego, which takes more memory to parse than TOML does.
pub(crate) const REGO_BYTES: usize = 4 * 1024 * 1024;
/// Brackets inside each other in a document in Rego. A grant in one has four.
pub(crate) const REGO_DEPTH: usize = 6;
/// Bytes its parser may have to read, counting those it reads again.
pub(crate) const REGO_WORK: usize = 16 * 1024 * 1024;
/// Bytes of all files of one bundle together.
pub(crate) const BUNDLE_BYTES: usize = 64 * 1024 * 1024;
/// Documents a `zone.toml` may list.
pub(crate) const DOCUMENTS: usize = 512;
/// Applications of one zone.
pub(crate) const APPLICATIONS: usize = 100_000;
/// Providers of one zone.
pub(crate) const PROVIDERS: usize = 20_000;
/// Resources of one zone.
pub(crate) const RESOURCES: usize = 50_000;
/// Subject issuers of one zone.
pub(crate) const SUBJECT_ISSUERS: usize = 20;
/// Scopes one resource may declare.
pub(crate) const SCOPES: usize = 4_096;
/// Operations one resource may declare.
pub(crate) const OPERATIONS: usize = 4_096;
/// Guards of one resource.
pub(crate) const GUARDS: usize = 32;
/// Fields of a body that one guard shows to whoever answers.
pub(crate) const SHOWN: usize = 16;
/// Granted scopes of one zone: every scope of every role of every grant.
pub(crate) const GRANTED: usize = 2_000_000;
/// Targets of one resource.
pub(crate) const TARGETS: usize = 16;
/// Rules of one kind in the policy data (`confinement`, `risk`, `approval_tiers`, `restrict`).
pub(crate) const RULES: usize = 20_000;
/// Budgets and rates of one zone: every call looks at all of them.
pub(crate) const BUDGETS: usize = 256;
/// Tests of one bundle.
pub(crate) const TESTS: usize = 10_000;
/// Secret hashes one application may have: the current one and those still being rotated out.
pub(crate) const SECRETS: usize = 8;
/// Problems one report holds; the rest is only counted.
pub(crate) const PROBLEMS: usize = 500;

/// Bytes of an identifier (application, provider, resource, role, tier).
pub(crate) const NAME_BYTES: usize = 256;
/// Bytes of a subject issuer's `iss`.
pub(crate) const ISSUER_BYTES: usize = 2_048;
/// Bytes of the audience of a subject issuer's tokens.
pub(crate) const AUDIENCE_BYTES: usize = 512;
/// Bytes of a request path or an operation template. Servers commonly stop at 8 KiB for the whole request line.
pub(crate) const PATH_BYTES: usize = 8 * 1024;
/// Percent-decodings beyond the first after which a path that still changes is refused. Honest clients encode once,
/// rarely twice.
pub(crate) const PATH_DECODINGS: usize = 6;
/// Segments of an operation template.
pub(crate) const TEMPLATE_SEGMENTS: usize = 64;
/// Columns are counted in characters up to here, and in bytes beyond: a file on one long line stays cheap.
pub(crate) const COLUMN_BYTES: usize = 4 * 1024;

/// The most of anything that a budget counts; numbers up to here are exact in every place that counts them.
pub(crate) const COUNTED: u64 = 1_000_000_000_000;
