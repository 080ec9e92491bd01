//! The store of a single node, and of what each node of a fleet keeps for itself: a file in the state folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};

use crate::state::error::StateError;

/// Version of the file this program writes; the migrations set it as `user_version`.
const VERSION: i64 = 6;

super::database::database!(SqliteConnection, SqliteRow);

/// Opens the store and brings it to this version; a newer one is refused untouched.
pub(in crate::state) async fn open(path: &Path) -> Result<SqliteConnection, StateError> {
    let failed = |source| StateError::store("open the store", source);
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?;
    if version > VERSION {
        return Err(StateError::NewerStore { found: version, known: VERSION });
    }
    sqlx::migrate!("migrations/sqlite")
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|source| StateError::Migrate(Arc::new(source)))?;
    Ok(connection)
}
