//! The store the tests run on, and a second connection to it, to break it and to see what is committed.
//!
//! With `CARACAL_TEST_POSTGRES=ADDRESS:PORT` (see `scripts/postgres.sh`) every test of the state runs on a schema of
//! its own on that server, without it on SQLite.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::*;
use crate::config::StoreConfig;
use crate::state::store::{Columns, Database, Statement};

/// The server the tests were told to use.
fn server() -> Option<SharedStore> {
    let at = std::env::var("CARACAL_TEST_POSTGRES").ok()?;
    let (host, port) = at.rsplit_once(':').expect("an address and a port");
    let config = StoreConfig {
        host: host.to_owned(),
        port: port.parse().expect("a port"),
        database: "postgres".to_owned(),
        user: "caracal".to_owned(),
        tls: false,
        password_file: None,
        ca_file: None,
    };
    Some(SharedStore::new(&config, None))
}

/// A fresh schema on the server the tests were told to use; none where they run on SQLite.
pub(super) async fn schema() -> Option<SharedStore> {
    let server = server()?;
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    let mut connection = server.connect().await.expect("the server of CARACAL_TEST_POSTGRES answers");
    let create: &'static str = format!("CREATE SCHEMA {name}").leak();
    connection.execute(Statement::new(create)).await.unwrap();
    connection.close().await.unwrap();
    Some(server.in_schema(&name))
}

pub(super) enum Beside {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Beside {
    pub(super) async fn connect(bench: &Bench) -> Self {
        match &bench.shared {
            Some(server) => Self::Postgres(server.connect().await.unwrap()),
            None => {
                let path = bench.folder().join("state.db");
                let options = SqliteConnectOptions::new().filename(path).foreign_keys(false);
                Self::Sqlite(options.connect().await.unwrap())
            }
        }
    }

    pub(super) async fn run(&mut self, sql: &'static str) {
        let statement = Statement::new(sql);
        match self {
            Self::Sqlite(connection) => connection.execute(statement).await,
            Self::Postgres(connection) => connection.execute(statement).await,
        }
        .unwrap();
    }

    /// The number in the one row and column `n` of a query.
    pub(super) async fn number(&mut self, sql: &'static str) -> i64 {
        let statement = Statement::new(sql);
        match self {
            Self::Sqlite(connection) => {
                connection.fetch(statement).await.unwrap().first().and_then(|row| row.number("n"))
            }
            Self::Postgres(connection) => {
                connection.fetch(statement).await.unwrap().first().and_then(|row| row.number("n"))
            }
        }
        .unwrap()
    }
}
