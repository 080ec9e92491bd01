//! The JSON Schema of a bundle, for editors. Its structs are never filled: reading needs places, a schema needs words.

#![expect(dead_code, reason = "only the schema of these structs is used")]

mod budget;
mod case;
mod guard;
mod policy;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use budget::{Budget, Rate};
use case::Test;
use guard::Guard;
use policy::{ApprovalTier, Confinement, Grant, Risk};

/// The JSON Schema of a bundle in its single-file form. Every document of a folder is a part of it.
pub fn bundle_schema() -> serde_json::Value {
    schemars::schema_for!(Bundle).to_value()
}

/// A zone: its applications, providers, resources and policy. Any document may hold any part; `zone` stands in
/// `zone.toml` or in the single file.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    /// Version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    schema: u32,
    zone: Option<ZoneHead>,
    #[serde(default)]
    applications: Vec<Application>,
    #[serde(default)]
    providers: Vec<Provider>,
    #[serde(default)]
    resources: Vec<Resource>,
    /// Identity providers whose users may be acted for.
    #[serde(default)]
    #[schemars(length(max = 20))]
    subject_issuers: Vec<SubjectIssuer>,
    /// Binding key to application id.
    #[serde(default)]
    app_ids: BTreeMap<String, String>,
    /// Resource identifier to its grant.
    #[serde(default)]
    grants: BTreeMap<String, Grant>,
    /// Caps by label prefix; every rule that matches a label must hold.
    #[serde(default)]
    confinement: Vec<Confinement>,
    /// Anything in here freezes the zone.
    #[serde(default)]
    restrict: Vec<String>,
    /// Risk tiers of scopes, one for each.
    #[serde(default)]
    risk: Vec<Risk>,
    /// Tiers that need an approval.
    #[serde(default)]
    approval_tiers: Vec<ApprovalTier>,
    /// How much may be done in a time. Names are unique, also among rates.
    #[serde(default)]
    #[schemars(length(max = 256))]
    budgets: Vec<Budget>,
    /// How fast calls may come.
    #[serde(default)]
    #[schemars(length(max = 256))]
    rates: Vec<Rate>,
    /// What the bundle expects of its own policy; one that is not met keeps the bundle out. In a folder they stand in
    /// files of their own, which `zone.tests` lists.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    tests: Vec<Test>,
}

/// The head of a bundle.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneHead {
    /// The name of the zone in caracal.toml.
    id: String,
    /// For people.
    name: Option<String>,
    /// Documents of the folder, relative to it. Not in a single file.
    #[serde(default)]
    documents: Vec<String>,
    /// Files of the folder with `[[tests]]`, relative to it. Not in a single file.
    #[serde(default)]
    tests: Vec<String>,
}

/// A program that may ask for mandates.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Application {
    id: String,
    /// For people.
    name: Option<String>,
    /// `sha256$<base64url>` or `argon2id$<salt>$<hash>`; never the secret itself.
    #[serde(default)]
    #[schemars(length(max = 8))]
    secrets: Vec<String>,
    #[serde(default)]
    traits: Vec<String>,
    /// Requests in flight at once; 256 by default.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_concurrent: Option<u32>,
}

/// How calls get their credential. Which keys are needed depends on `kind`.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    /// `provider://<name>`.
    #[schemars(regex(pattern = r"^provider://."))]
    identifier: String,
    /// Row id; the identifier by default.
    id: Option<String>,
    kind: ProviderKind,
    /// `secret://<name>/<key>`: a key of the secrets file.
    #[schemars(regex(pattern = r"^secret://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    secret: Option<String>,
    /// api_key: where the key goes; `header` by default.
    location: Option<Location>,
    /// api_key in a header: its name.
    header_name: Option<String>,
    /// api_key in a header, bearer_token and oauth2_*: the word before the credential.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9-]*$"))]
    auth_scheme: Option<String>,
    /// api_key in the query: the parameter.
    query_param_name: Option<String>,
    /// bearer_token and oauth2_*: the header; `authorization` by default.
    auth_header: Option<String>,
    /// http_basic: the user name; the secret is the password.
    username: Option<String>,
    /// oauth2_*: where tokens are fetched; https, or http on loopback. This or `issuer`.
    #[schemars(regex(pattern = r"^https?://[^@#?]+$"))]
    #[schemars(length(max = 2048))]
    token_endpoint: Option<String>,
    /// oauth2_*: whose metadata names the token endpoint. This or `token_endpoint`.
    #[schemars(regex(pattern = r"^https?://[^@#?]+$"))]
    #[schemars(length(max = 2048))]
    issuer: Option<String>,
    /// oauth2_*: the client that asks.
    client_id: Option<String>,
    /// oauth2_*: how it proves itself; `client_secret_basic` by default.
    client_auth_method: Option<ClientAuthMethod>,
    /// oauth2_client_credentials: what it asks with; `client_credentials` by default.
    grant_type: Option<GrantType>,
    /// client_secret_basic and client_secret_post: a reference, as in `secret`.
    #[schemars(regex(pattern = r"^secret://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    client_secret: Option<String>,
    /// private_key_jwt and jwt_bearer: a reference to a private key in PEM.
    #[schemars(regex(pattern = r"^secret://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    private_key: Option<String>,
    /// private_key_jwt and jwt_bearer: `kid` of what is signed.
    key_id: Option<String>,
    /// private_key_jwt and jwt_bearer: the key's certificate in PEM; its thumbprints go into what is signed.
    certificate: Option<String>,
    /// oauth2_*: scopes asked for.
    #[serde(default)]
    scopes: Vec<String>,
    /// client_credentials: the form field `audience`.
    audience: Option<String>,
    /// client_credentials and oauth2_authorization_code: the field `resource` (RFC 8707).
    resource: Option<String>,
    /// jwt_bearer: `sub` of the assertion; the client id by default.
    assertion_subject: Option<String>,
    /// jwt_bearer: `aud` of the assertion; the token endpoint by default.
    assertion_audience: Option<String>,
    /// oauth2_*: more form fields; not those of the grant.
    #[serde(default)]
    token_params: BTreeMap<String, String>,
    /// oauth2_authorization_code with `token_endpoint`: where a person is sent to agree.
    #[schemars(regex(pattern = r"^https?://[^@#?]+$"))]
    #[schemars(length(max = 2048))]
    authorization_endpoint: Option<String>,
    /// oauth2_authorization_code with `token_endpoint`: where a token is given back (RFC 7009).
    #[schemars(regex(pattern = r"^https?://[^@#?]+$"))]
    #[schemars(length(max = 2048))]
    revocation_endpoint: Option<String>,
    /// oauth2_authorization_code: more parameters of the authorization request; not those of the edge.
    #[serde(default)]
    authorization_params: BTreeMap<String, String>,
    /// oauth2_authorization_code: whether a person without a connection of their own acts with the shared one.
    #[serde(default)]
    shared_fallback: bool,
    /// Whether the upstream also gets a resource mandate in `X-Caracal-Identity`.
    #[serde(default)]
    forward_caracal_identity: bool,
    /// More places where clients put their key.
    #[serde(default)]
    key_slots: Vec<KeySlot>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProviderKind {
    None,
    CaracalMandate,
    ApiKey,
    BearerToken,
    HttpBasic,
    #[serde(rename = "oauth2_client_credentials")]
    ServiceToken,
    #[serde(rename = "oauth2_authorization_code")]
    AuthorizationCode,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClientAuthMethod {
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
    None,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GrantType {
    ClientCredentials,
    JwtBearer,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Location {
    Header,
    Query,
}

/// One place where a client puts its key.
#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeySlot {
    /// The whole value of this header.
    Header(String),
    /// What follows `Bearer ` in this header.
    Bearer(String),
    /// The user name or the password of Basic credentials.
    Basic(BasicPart),
    /// The value of this query parameter.
    Query(String),
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BasicPart {
    User,
    Password,
}

/// Something behind the edge.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    /// The name callers use, such as `resource://echo`.
    identifier: String,
    /// Row id; the identifier by default.
    id: Option<String>,
    /// `http` or `https`, host, optional port, base path and pinned query pairs.
    #[schemars(regex(pattern = r"^https?://[^@#]+$"))]
    upstream_url: String,
    /// `host:port` of every place where the upstream is served; its own host by default. Name, path and query stay
    /// those of `upstream_url`.
    #[serde(default)]
    targets: Vec<String>,
    scopes: Vec<String>,
    /// Identifier or id of a provider; a resource mandate is sent without one.
    credential_provider: Option<String>,
    /// `enforced` by default.
    operation_enforcement: Option<Enforcement>,
    #[serde(default)]
    operations: Vec<Operation>,
    /// What is allowed of the MCP server behind it; then it takes nothing else, and has no `operations`.
    mcp: Option<Mcp>,
    /// Conditions that can refuse what is otherwise allowed.
    #[serde(default)]
    #[schemars(length(max = 32))]
    guards: Vec<Guard>,
    /// Host names that lead here; caracal.toml must give them to the zone.
    #[serde(default)]
    hosts: Vec<String>,
    /// Path prefixes that lead here; caracal.toml must give them to the zone.
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    plugins: Vec<Plugin>,
    /// Whether mandates may be minted reusable.
    #[serde(default)]
    reusable_mandates: bool,
    /// Whether a mandate may come in a query slot of the provider.
    #[serde(default)]
    query_key_slots: bool,
    /// Cookies let through although a credential is injected.
    #[serde(default)]
    cookies: Vec<String>,
    limits: Option<Limits>,
    tls: Option<UpstreamTls>,
    health_check: Option<HealthCheck>,
    /// `http1` (the default), `http2`, or over TLS what the upstream takes (`auto`). `http2` with an `http` upstream
    /// starts with HTTP/2 at once.
    upstream_protocol: Option<UpstreamProtocol>,
    /// Whether `error` of a refusal is a code (`caracal`, the default) or an object with code, message and type, which
    /// the clients of many APIs expect.
    error_format: Option<ErrorFormat>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UpstreamProtocol {
    Http1,
    Http2,
    Auto,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorFormat {
    Caracal,
    Object,
}

/// Asks every place of the upstream beside the calls; an answer of 200 to 299 is a pass. No credential is sent.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthCheck {
    /// Path and query, as they are sent.
    path: String,
    /// Between two checks; 5,000 by default.
    #[schemars(range(min = 100, max = 3_600_000))]
    interval_ms: Option<u64>,
    /// 1,000 by default.
    #[schemars(range(min = 1, max = 60_000))]
    timeout_ms: Option<u64>,
    /// Passes in a row until a place counts as well again; 1 by default.
    #[schemars(range(min = 1, max = 100))]
    healthy_after: Option<u64>,
    /// Failures in a row until it counts as unwell; 2 by default.
    #[schemars(range(min = 1, max = 100))]
    unhealthy_after: Option<u64>,
}

/// TLS to an `https` upstream. Its certificate is always verified.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamTls {
    /// The name that is asked for and that the certificate must be for, instead of the upstream's host. Secrets of the
    /// resource must be for it too.
    server_name: Option<String>,
    /// A name of `[egress.authorities]` in caracal.toml: believed instead of the system's authorities.
    ca: Option<String>,
    /// The edge's own certificate and what is between it and its authority, PEM.
    client_certificate: Option<String>,
    /// `secret://<name>/<key>`: its private key, PEM.
    client_key: Option<String>,
}

#[derive(JsonSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Enforcement {
    Enforced,
    TransportUniform,
}

/// Which scope a method on a path needs. The most specific one that matches decides.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    /// In upper case; `*` is every method.
    method: String,
    /// Literal segments, `{name}` for one segment, `/**` at the end for the rest.
    path: String,
    scope: String,
}

/// A plugin, with its own configuration beside its name.
#[derive(JsonSchema, Deserialize)]
struct Plugin {
    name: String,
    #[serde(flatten)]
    config: BTreeMap<String, serde_json::Value>,
}

/// An MCP server.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mcp {
    /// Path of its endpoint, below the resource.
    path: String,
    /// The scope of the connection: its handshake, notifications, `tools/list`, the server's stream and its end.
    scope: String,
    /// Tools that may be called.
    #[serde(default)]
    tools: Vec<McpEntry>,
    /// Other methods that may be used, such as `resources/read`.
    #[serde(default)]
    methods: Vec<McpEntry>,
}

/// A tool or a method of an MCP server.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct McpEntry {
    /// Compared exactly.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_./-]{1,128}$"))]
    name: String,
    scope: String,
}

/// Sizes and times; the unit is the last part of the key.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    /// 10 MiB by default.
    max_request_bytes: Option<u64>,
    /// 5,000 by default.
    connect_timeout_ms: Option<u64>,
    /// Until the response head; 30,000 by default.
    response_timeout_ms: Option<u64>,
    /// Between two pieces of a response; 60,000 by default.
    idle_timeout_ms: Option<u64>,
    /// A whole response; 3,600 by default.
    max_stream_seconds: Option<u64>,
    /// Requests in flight at once; 1,024 by default.
    max_concurrent: Option<u32>,
    /// Requests that may wait for a place when all are taken; none by default.
    max_waiting: Option<u32>,
    /// How long one of them waits at most; 1,000 by default.
    max_wait_ms: Option<u64>,
}

/// An identity provider whose identity tokens are accepted.
#[derive(JsonSchema, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectIssuer {
    /// `iss` of its tokens, compared byte for byte.
    #[schemars(length(min = 1, max = 2048))]
    issuer: String,
    /// Where its keys are: https, or http on loopback; without a query.
    #[schemars(regex(pattern = r"^https?://[^@#?]+$"))]
    #[schemars(length(max = 2048))]
    jwks_url: String,
    /// The `aud` its tokens must name.
    #[schemars(length(min = 1, max = 512))]
    audience: String,
    /// Whether each of its tokens is good for one exchange only.
    #[serde(default)]
    single_use: bool,
}

#[cfg(test)]
mod tests;
