//! Connections to Redis that were looked at before they are used.
//!
//! A link is a connection for commands and one that waits on the streams. It exists only if the server keeps
//! what it is given (`maxmemory-policy noeviction`) and takes writes. A link that fails is thrown away, never
//! repaired: what the next one finds may be another server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, RedisError,
    Script, TlsCertificates,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::FleetConfig;
use crate::sealing::Readers;
use crate::sealing::file::read_private;

/// How long a command may take, and how long a connection may take to be made.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the server holds a read of the streams open, and how long its answer may take.
pub(super) const READ_BLOCK_MS: u64 = 500;
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a password, key or certificate file.
const MAX_FILE: u64 = 65_536;

/// How every script that counts begins: only on a primary, and under the epoch of this server and its history.
pub(super) const PRIMARY_AND_EPOCH: &str = r"
local replication = redis.call('INFO', 'replication')
if not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('READONLY this server is not a primary')
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  .. ':' .. string.match(replication, 'master_replid:(%x+)')
local held = redis.call('HMGET', KEYS[1], 'epoch', 'server')
local epoch, begun = held[1], 'kept'
if not epoch or held[2] ~= server then
  epoch, begun = ARGV[1], 'begun'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'server', server)
end
";

/// The one script: marks and epochs are looked at and changed in a single step on one server.
///
/// The epoch belongs to a server process (`run_id`) in one replication history (`master_replid`, new at every
/// promotion). On any other the marks may be incomplete, so there is a new epoch and no earlier mandate counts.
///
/// KEYS: epoch, mark. ARGV: an epoch to begin if need be, the mandate's epoch or nothing to look only,
/// milliseconds to keep the mark.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PRIMARY_AND_EPOCH}{}",
        r"
if ARGV[2] == '' then return {'seen', epoch, begun} end
if epoch ~= ARGV[2] then return {'past', epoch, begun} end
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[3]) then return {'used', epoch, begun} end
return {'marked', epoch, begun}
"
    ))
});

pub(super) const EPOCH_KEY: &str = "caracal:edge:epoch";

/// Why there is no link. Tells operators what to do and never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file of the `[state]` table cannot be used.
    #[error("`[state] {setting}`: `{path}` {problem}")]
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Redis would throw marks away.
    #[error(
        "Redis has maxmemory-policy `{0}` and would throw marks of used mandates away; set it to `noeviction` (CONFIG SET maxmemory-policy noeviction, and in redis.conf)"
    )]
    Evicts(String),
    /// Redis cannot be asked, or not written to.
    #[error("Redis cannot be used: {0}")]
    Redis(#[from] RedisError),
    /// Redis answered something else than its kind answers.
    #[error("Redis gave an answer that makes no sense: {0}")]
    Answer(&'static str),
}

/// How to reach the server; made once from the configuration.
pub(super) struct Dialler(Client);

impl Dialler {
    pub(super) fn new(config: &FleetConfig) -> Result<Self, FleetError> {
        let server = &config.redis;
        let tls = server.tls;
        let (host, port) = (server.host.clone(), server.port);
        let address = if tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default()
            .set_db(server.database)
            .set_lib_name("caracal-edge", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &server.user {
            login = login.set_username(user);
        }
        if let Some(path) = &config.password_file {
            let password = private_text("redis_password_file", path)?;
            login = login.set_password(password.expose_secret());
        }
        let info = address.into_connection_info()?.set_redis_settings(login);
        let root_cert = config.ca_file.as_ref().map(|path| {
            let wrong = |error: std::io::Error| FleetError::File {
                setting: "redis_ca_file",
                path: path.clone(),
                problem: format!("cannot be read: {error}"),
            };
            std::fs::read(path).map_err(wrong)
        });
        let certificates = TlsCertificates { client_tls: None, root_cert: root_cert.transpose()? };
        let client = if tls { Client::build_with_tls(info, certificates)? } else { Client::open(info)? };
        Ok(Self(client))
    }

    /// Connects and looks at the server.
    pub(super) async fn connect(&self) -> Result<Link, FleetError> {
        let dial = async |timeout| {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(timeout));
            self.0.get_multiplexed_async_connection_with_config(&config).await
        };
        let mut commands = Commands(dial(COMMAND_TIMEOUT).await?);
        commands.keeps_everything().await?;
        Ok(Link { commands, streams: dial(READ_TIMEOUT).await? })
    }
}

/// The text of a private file, without white space around it.
pub(super) fn private_text(setting: &'static str, path: &Path) -> Result<SecretString, FleetError> {
    let wrong = |problem: String| FleetError::File { setting, path: path.to_owned(), problem };
    let content =
        read_private(path, Readers::OwnGroups, MAX_FILE).map_err(|problem| wrong(problem.to_string()))?;
    let text = std::str::from_utf8(&content).map_err(|error| wrong(format!("is not text: {error}")))?.trim();
    if text.is_empty() {
        return Err(wrong("is empty".to_owned()));
    }
    Ok(text.into())
}

/// Both connections to a server that passed.
pub(super) struct Link {
    pub(super) commands: Commands,
    pub(super) streams: MultiplexedConnection,
}

/// The connection for commands; clones share it.
#[derive(Clone)]
pub(super) struct Commands(pub(super) MultiplexedConnection);

/// What the script found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Seen,
    Marked,
    Used,
    PastEpoch,
}

/// What the script answered: what it found, the epoch that counts, and whether it had to begin it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) found: Found,
    pub(super) epoch: String,
    pub(super) begun: bool,
}

impl Commands {
    /// The epoch that counts on the server, begun as `fresh` if there is none.
    pub(super) async fn epoch(&mut self, fresh: &str) -> Result<Answer, FleetError> {
        self.ask(fresh, EPOCH_KEY, "", 0).await
    }

    /// Uses a mandate of epoch `claimed` up for `keep_ms` milliseconds, if that epoch counts.
    pub(super) async fn mark(
        &mut self,
        fresh: &str,
        mark: &str,
        claimed: &str,
        keep_ms: i64,
    ) -> Result<Answer, FleetError> {
        if claimed.is_empty() {
            return Err(FleetError::Answer("a mandate without an epoch cannot be marked"));
        }
        self.ask(fresh, mark, claimed, keep_ms).await
    }

    async fn ask(
        &mut self,
        fresh: &str,
        mark: &str,
        claimed: &str,
        keep_ms: i64,
    ) -> Result<Answer, FleetError> {
        let mut call = SCRIPT.key(EPOCH_KEY);
        call.key(mark).arg(fresh).arg(claimed).arg(keep_ms);
        let (found, epoch, begun): (String, String, String) = call.invoke_async(&mut self.0).await?;
        let found = match found.as_str() {
            "seen" => Found::Seen,
            "marked" => Found::Marked,
            "used" => Found::Used,
            "past" => Found::PastEpoch,
            _ => return Err(FleetError::Answer("an unknown word from the script")),
        };
        Ok(Answer { found, epoch, begun: begun == "begun" })
    }

    /// Refuses a server that would evict keys.
    pub(super) async fn keeps_everything(&mut self) -> Result<(), FleetError> {
        let text: String = redis::cmd("INFO").arg("memory").query_async(&mut self.0).await?;
        let lines: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        match lines.get("maxmemory_policy") {
            Some(&"noeviction") => Ok(()),
            Some(other) => Err(FleetError::Evicts((*other).to_owned())),
            None => Err(FleetError::Answer("INFO memory names no maxmemory_policy")),
        }
    }
}
