//! What may happen: the authority model, bundles, the compiled zone and the decision.
//!
//! A bundle goes in as text ([`BundleSource`]) and comes out as an immutable [`Zone`], or as a [`Report`] that lists every
//! problem in it. A zone then answers two questions: [`Zone::decide`] (may this mandate be minted or used?) and
//! [`Zone::authorize`] (may this very request be forwarded?). Only the second one makes a [`Permit`].
//!
//! The crate is pure: no I/O, no clock, no log. Same input, same answer.

mod application;
mod authorize;
mod budget;
mod bundle;
mod case;
mod changes;
mod compile;
mod convert;
mod data;
mod decision;
mod digest;
mod draft;
mod endpoint;
mod engine;
mod grounds;
mod guard;
mod issuer;
mod kept;
mod limits;
mod mcp;
mod names;
mod oauth;
mod operations;
mod path;
mod provider;
mod read;
mod report;
mod resource;
mod schema;
mod source;
mod upstream;
mod zone;

pub use application::{Application, SecretHash};
pub use authorize::{Guarding, Permit, Refused, UseRequest};
pub use budget::{Budget, BudgetPer, Measure, Span, UnitsFrom};
pub use case::CaseResult;
pub use compile::{Tested, compile, compile_and_test, recompile};
pub use convert::{PolicyForm, convert_bundle, convert_document};
pub use data::{Approver, Privacy, SelfApproval, TierDeclaration};
pub use decision::{
    Action, Allowed, Decision, DenyReason, EdgeFacts, Failure, Input, Presented, Principal, Rule,
};
pub use digest::{Digest, NotADigest};
pub use endpoint::EndpointUrl;
pub use grounds::{Grounds, RulePlaces, Tiered};
pub use guard::{Ask, Fault, Fired, Guard, GuardFacts, GuardMode, Guards, Reads, Stopped};
pub use issuer::SubjectIssuer;
pub use mcp::{Mcp, McpCall, McpEntry};
pub use oauth::{ClientAuthentication, Consent, Grant, ServiceToken, TokenSource};
pub use operations::{Operation, OperationMethod, Operations};
pub use path::{Path, PathProblem};
pub use provider::{KeySlot, Provider, ProviderKind, SecretRef};
pub use report::{Place, Problem, Report};
pub use resource::{
    ClientCertificate, Enforcement, ErrorFormat, HealthCheck, PluginSpec, Resource, ResourceLimits,
    UpstreamProtocol, UpstreamTls,
};
pub use schema::bundle_schema;
pub use source::{Assigned, BundleSource, SourceFile};
pub use upstream::{Scheme, Target, Upstream};
pub use zone::Zone;
