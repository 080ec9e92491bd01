//! The folder of an edge for benches, and an agent's way to a mandate of it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http1::{Connection, Reply, get, post_form, post_json, with_bearer};
use crate::{upstream, zones};

/// The zone of the bench edge.
pub const ZONE: &str = "bench";

/// The application's secret: made for this file, good nowhere else.
pub const SECRET: &str = "cs_YmVuY2gtc2VjcmV0LW9mLTMyLWJ5dGVzLWV4YWN0bHk";

/// How the secret stands in a bundle.
#[must_use]
pub fn stored_secret() -> String {
    format!("sha256${}", URL_SAFE_NO_PAD.encode(digest(&SHA256, SECRET.as_bytes())))
}

/// Where an edge listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Gateway.
    pub gateway: SocketAddr,
    /// Token endpoint.
    pub authority: SocketAddr,
    /// Sessions and delegations.
    pub coordinator: SocketAddr,
    /// Metrics.
    pub ops: SocketAddr,
}

impl Ports {
    /// Four ports that are free now. Another process may take one before the edge does; then the run fails.
    ///
    /// # Errors
    /// None are free.
    pub fn free() -> anyhow::Result<Self> {
        let bind = || std::net::TcpListener::bind("127.0.0.1:0");
        let held = [bind()?, bind()?, bind()?, bind()?];
        let [gateway, authority, coordinator, ops] = &held;
        Ok(Self {
            gateway: gateway.local_addr()?,
            authority: authority.local_addr()?,
            coordinator: coordinator.local_addr()?,
            ops: ops.local_addr()?,
        })
    }
}

/// The files of an edge in a folder of its own, gone when dropped.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    /// Where the edge will listen.
    pub ports: Ports,
    upstream: SocketAddr,
}

impl Folder {
    /// Writes configuration, bundle and secrets for a zone with `resources` resources.
    ///
    /// # Errors
    /// The disk says no.
    pub fn write(resources: usize, upstream: SocketAddr) -> anyhow::Result<Self> {
        let folder = Self { dir: TempDir::new()?, ports: Ports::free()?, upstream };
        std::fs::create_dir(folder.path().join("bundles"))?;
        let Ports { gateway, authority, coordinator, ops } = folder.ports;
        let config = format!(
            "schema = 1\nissuer = \"http://{authority}\"\nstate_dir = \"state\"\nbundles_dir = \"bundles\"\n\
             [listeners]\ngateway = {{ address = \"{gateway}\" }}\nauthority = {{ address = \"{authority}\" }}\n\
             coordinator = {{ address = \"{coordinator}\" }}\nops = {{ address = \"{ops}\" }}\n\
             [log]\nlevel = \"warn\"\n[zones.{ZONE}]\nprefixes = [\"/bench\"]\n"
        );
        std::fs::write(folder.config(), config)?;
        folder.write_bundle(resources)?;
        let secrets = format!(
            "schema = 1\n[secrets.bench]\nzones = [\"{ZONE}\"]\nhosts = [\"{upstream}\"]\n\
             api_key = \"sk-bench-0123456789abcdef0123456789abcdef\"\n"
        );
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.create(true).write(true).mode(0o600).open(folder.path().join("secrets.toml"))?;
        file.write_all(secrets.as_bytes())?;
        Ok(folder)
    }

    /// Replaces the bundle by one with this many resources.
    ///
    /// # Errors
    /// The disk says no.
    pub fn write_bundle(&self, resources: usize) -> anyhow::Result<()> {
        let text = zones::text(ZONE, resources, &stored_secret(), &format!("http://{}", self.upstream));
        let fresh = self.path().join("fresh");
        std::fs::write(&fresh, text)?;
        std::fs::rename(fresh, self.path().join(format!("bundles/{ZONE}.toml")))?;
        Ok(())
    }

    /// Puts a folder of documents in the place of the bundle's one file, before an edge is started on it.
    ///
    /// # Errors
    /// The disk says no.
    pub fn spread(&self, resources: usize, documents: usize) -> anyhow::Result<()> {
        let bundles = self.path().join("bundles");
        std::fs::create_dir(bundles.join(ZONE))?;
        std::fs::remove_file(bundles.join(format!("{ZONE}.toml")))?;
        for (name, text) in self.documents(resources, documents, 0) {
            std::fs::write(bundles.join(ZONE).join(name), text)?;
        }
        Ok(())
    }

    /// The documents of such a folder, the first of which is edited.
    #[must_use]
    pub fn documents(&self, resources: usize, documents: usize, edited: usize) -> Vec<(String, String)> {
        let upstream = format!("http://{}", self.upstream);
        zones::folder(ZONE, resources, documents, &stored_secret(), &upstream, edited)
    }

    /// Replaces one document of such a folder.
    ///
    /// # Errors
    /// The disk says no.
    pub fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let fresh = self.path().join("fresh");
        std::fs::write(&fresh, text)?;
        Ok(std::fs::rename(fresh, self.path().join("bundles").join(ZONE).join(name))?)
    }

    /// Adds to the configuration, before an edge is started on it.
    ///
    /// # Errors
    /// The disk says no.
    pub fn configure(&self, more: &str) -> anyhow::Result<()> {
        let mut file = std::fs::OpenOptions::new().append(true).open(self.config())?;
        Ok(file.write_all(more.as_bytes())?)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("caracal.toml")
    }
}

/// An application with its two sessions and its delegation, as the official transport sets them up.
#[derive(Clone, Debug)]
pub struct Agent {
    ports: Ports,
    /// Its session mandate.
    pub bearer: String,
    /// The session that holds the delegation, and the one that gave it.
    session: String,
    source: String,
    delegation: String,
}

impl Agent {
    /// Bootstraps an application on a running edge.
    ///
    /// # Errors
    /// The edge refuses something or does not answer.
    pub async fn provision(ports: Ports) -> anyhow::Result<Self> {
        let mut authority = Connection::open(ports.authority).await?;
        let bearer = access_token(&authority.send(&bootstrap_request(ports.authority)).await?)?;
        let mut coordinator = Connection::open(ports.coordinator).await?;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let reply = coordinator.send(&session_request(ports.coordinator, &bearer)).await?;
            ids.push(member(&reply, 201, "agent_session_id")?);
        }
        let [source, target] = ids.as_slice() else { anyhow::bail!("two sessions were asked for") };
        let reply = coordinator.send(&delegation_request(ports.coordinator, &bearer, source, target)).await?;
        let delegation = member(&reply, 201, "delegation_edge_id")?;
        Ok(Self { ports, bearer, session: target.clone(), source: source.clone(), delegation })
    }

    /// The request that delegates once more, to this session or to the one that holds the delegation.
    #[must_use]
    pub fn delegate_request(&self, target: Option<&str>) -> Vec<u8> {
        let target = target.unwrap_or(&self.session);
        delegation_request(self.ports.coordinator, &self.bearer, &self.source, target)
    }

    /// The request that takes a delegation back.
    #[must_use]
    pub fn revoke_request(&self, delegation: &str) -> Vec<u8> {
        let path = format!("/zones/{ZONE}/delegations/{delegation}/revoke");
        with_bearer("PATCH", self.ports.coordinator, &path, &self.bearer)
    }

    /// The request that starts a session of its application.
    #[must_use]
    pub fn start_request(&self) -> Vec<u8> {
        session_request(self.ports.coordinator, &self.bearer)
    }

    /// The request that ends the session its mandates stand on.
    #[must_use]
    pub fn end_request(&self) -> Vec<u8> {
        let path = format!("/zones/{ZONE}/agents/{}", self.session);
        with_bearer("DELETE", self.ports.coordinator, &path, &self.bearer)
    }

    /// The request that lists 500 sessions.
    #[must_use]
    pub fn list_request(&self) -> Vec<u8> {
        let path = format!("/zones/{ZONE}/agents?limit=500");
        with_bearer("GET", self.ports.coordinator, &path, &self.bearer)
    }

    /// The request that mints one gateway mandate, ready to be sent as often as wanted.
    #[must_use]
    pub fn mint_request(&self, reusable: bool) -> Vec<u8> {
        self.mint_request_for("s0", reusable)
    }

    /// The same for other scopes.
    #[must_use]
    pub fn mint_request_for(&self, scope: &str, reusable: bool) -> Vec<u8> {
        let resource = zones::resource(0);
        let mut fields = vec![
            ("resource", resource.as_str()),
            ("scope", scope),
            ("agent_session_id", &self.session),
            ("delegation_edge_id", &self.delegation),
        ];
        if reusable {
            fields.push(("reusable", "true"));
        }
        token_request(self.ports.authority, &fields)
    }

    /// Mints one mandate.
    ///
    /// # Errors
    /// The edge refuses or does not answer.
    pub async fn mint(&self, authority: &mut Connection, reusable: bool) -> anyhow::Result<String> {
        access_token(&authority.send(&self.mint_request(reusable)).await?)
    }
}

/// One governed call that carries this mandate.
#[must_use]
pub fn call(mandate: &str) -> Vec<u8> {
    get(
        "edge.bench",
        "/read/item/1",
        &[("x-caracal-resource", &zones::resource(0)), ("authorization", &format!("Bearer {mandate}"))],
    )
}

/// The fields that make a request a governed call.
#[must_use]
pub fn governed(mandate: &str) -> [(&'static str, String); 2] {
    [("x-caracal-resource", zones::resource(0)), ("authorization", format!("Bearer {mandate}"))]
}

/// One governed call whose answer is an event stream that stays open.
#[must_use]
pub fn stream_call(mandate: &str) -> Vec<u8> {
    get(
        "edge.bench",
        upstream::STREAM_PATH,
        &[("x-caracal-resource", &zones::resource(0)), ("authorization", &format!("Bearer {mandate}"))],
    )
}

/// The request that starts a session.
#[must_use]
pub fn session_request(coordinator: SocketAddr, bearer: &str) -> Vec<u8> {
    let body =
        json!({ "application_id": zones::APPLICATION, "labels": [zones::LABEL], "ttl_seconds": 3_600 });
    post_json(coordinator, &format!("/zones/{ZONE}/agents"), bearer, &body)
}

/// The access token in an answer of the token endpoint.
///
/// # Errors
/// It is not a success.
pub fn access_token(reply: &Reply) -> anyhow::Result<String> {
    member(reply, 200, "access_token")
}

/// A text member of a JSON answer.
///
/// # Errors
/// Another status, or no such member.
pub fn member(reply: &Reply, status: u16, name: &str) -> anyhow::Result<String> {
    ensure!(reply.status == status, "status {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
    let body: Value = serde_json::from_slice(&reply.body)?;
    body.get(name)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("no `{name}` in {body}"))
}

fn delegation_request(coordinator: SocketAddr, bearer: &str, source: &str, target: &str) -> Vec<u8> {
    let body = json!({
        "issuer_application_id": zones::APPLICATION, "receiver_application_id": zones::APPLICATION,
        "source_session_id": source, "target_session_id": target,
        "constraints": { "resources": [zones::resource(0)] },
        "scopes": ["s0", "s1", "s2"], "ttl_seconds": 3_600,
    });
    post_json(coordinator, &format!("/zones/{ZONE}/delegations"), bearer, &body)
}

fn bootstrap_request(authority: SocketAddr) -> Vec<u8> {
    token_request(authority, &[("resource", &zones::resource(0)), ("scope", "agent:lifecycle")])
}

fn token_request(authority: SocketAddr, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut form = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("zone_id", ZONE),
        ("application_id", zones::APPLICATION),
        ("client_secret", SECRET),
    ];
    form.extend_from_slice(fields);
    post_form(authority, "/oauth/2/token", &form)
}
