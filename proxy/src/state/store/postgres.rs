//! The store that the nodes of a fleet share.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use super::database::{Database, Statement};
use crate::config::StoreConfig;
use crate::state::error::StateError;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A node that stops in the middle of a commit holds all others up no longer than this.
const STATEMENT_TIMEOUT: &str = "5s";

super::database::database!(PgConnection, PgRow);

/// The way to a Postgres server. It carries a password and prints none.
#[derive(Clone)]
pub struct SharedStore {
    options: PgConnectOptions,
    at: Arc<str>,
}

impl std::fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedStore").field(&self.at).finish()
    }
}

impl SharedStore {
    /// The server that the configuration names; `password` is what its password file holds.
    #[must_use]
    pub fn new(config: &StoreConfig, password: Option<&SecretString>) -> Self {
        let at = format!("{}:{}/{}", config.host, config.port, config.database).into();
        // Without the environment: a PGPASSWORD or PGOPTIONS of whoever starts the process must change nothing.
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&config.host)
            .port(config.port)
            .database(&config.database)
            .username(&config.user)
            .ssl_mode(if config.tls { PgSslMode::VerifyFull } else { PgSslMode::Disable })
            .application_name("caracal")
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("lock_timeout", STATEMENT_TIMEOUT),
                ("idle_in_transaction_session_timeout", STATEMENT_TIMEOUT),
            ])
            .disable_statement_logging();
        if let Some(password) = password {
            options = options.password(password.expose_secret());
        }
        if let Some(file) = &config.ca_file {
            options = options.ssl_root_cert(file);
        }
        Self { options, at }
    }

    /// The same server with every table in `schema`.
    #[cfg(test)]
    pub(in crate::state) fn in_schema(mut self, schema: &str) -> Self {
        self.options = self.options.options([("search_path", schema)]);
        self
    }

    /// Connects.
    pub(in crate::state) async fn connect(&self) -> Result<PgConnection, StateError> {
        let failed = |source| StateError::store("connect to the shared store", source);
        match tokio::time::timeout(CONNECT, self.options.connect()).await {
            Ok(connected) => connected.map_err(failed),
            Err(_elapsed) => Err(failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    /// Connects and brings the store to this version; a newer one is refused untouched. Nodes that start at the
    /// same moment take turns.
    pub(in crate::state) async fn open(&self) -> Result<PgConnection, StateError> {
        let mut connection = self.connect().await?;
        let migrations = sqlx::migrate!("migrations/postgres");
        let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
        let found = version(&mut connection)
            .await
            .map_err(|source| StateError::store("open the shared store", source))?;
        if found > known {
            return Err(StateError::NewerStore { found, known });
        }
        migrations
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|source| StateError::Migrate(Arc::new(source)))?;
        Ok(connection)
    }
}

/// The latest migration the store has been through; 0 for an empty one.
async fn version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let there = Statement::new("SELECT to_regclass('_sqlx_migrations')::text AS name");
    let there = connection.fetch(there).await?;
    if there.first().and_then(|row| super::Columns::text(row, "name")).is_none() {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(connection).await
}

/// The number of the latest commit. With `hold`, nobody else commits until the transaction is over.
pub(in crate::state) async fn latest(connection: &mut PgConnection, hold: bool) -> Result<i64, sqlx::Error> {
    let sql = if hold { "SELECT seq FROM feed FOR UPDATE" } else { "SELECT seq FROM feed" };
    sqlx::query_scalar(sql).fetch_one(connection).await
}

/// Numbers the commit that is being made; `latest` must hold the feed.
pub(in crate::state) async fn number(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(Statement::new("UPDATE feed SET seq = seq + 1")).await.map(drop)
}

/// Reads the whole store, and the number of its latest commit.
pub(in crate::state) async fn everything(
    connection: &mut PgConnection,
) -> Result<(i64, super::Loaded), StateError> {
    // Commits are counted from 0, so that there is nothing with a number of -1 or less.
    match changes(connection, -1).await? {
        Some(all) => Ok(all),
        None => Err(StateError::Corrupt { table: "feed", id: "-1".to_owned() }),
    }
}

/// Reads what was written after commit `since`, with the number of the latest commit, as of one moment; none when
/// that is `since`.
pub(in crate::state) async fn changes(
    connection: &mut PgConnection,
    since: i64,
) -> Result<Option<(i64, super::Loaded)>, StateError> {
    let failed = |source| StateError::store("read the shared store", source);
    let mut reading = connection.begin_with(SNAPSHOT).await.map_err(failed)?;
    let seq = latest(&mut reading, false).await.map_err(failed)?;
    let loaded =
        if seq == since { None } else { Some((seq, super::load_since(&mut *reading, since).await?)) };
    reading.rollback().await.map_err(failed)?;
    Ok(loaded)
}

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
