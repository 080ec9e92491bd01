//! What the state asks of a database: run a statement, fetch rows, read a column.

use std::future::Future;

/// One value of a statement. Absent ones keep their type, which Postgres wants to know.
#[derive(Clone, Debug)]
pub(in crate::state) enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Bytes(Vec<u8>),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Number(Some(i64::from(flag)))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// SQL with `$1`, `$2` and so on, and what goes in their places.
#[derive(Clone, Debug)]
pub(in crate::state) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

impl Statement {
    pub(in crate::state) const fn new(sql: &'static str) -> Self {
        Self { sql, values: Vec::new() }
    }

    pub(in crate::state) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }
}

/// A connection, inside a transaction or not.
pub(in crate::state) trait Database: Send {
    /// A row as the driver has it.
    type Row: Columns + Send;

    /// Runs a statement; how many rows it changed.
    fn execute(&mut self, statement: Statement) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Every row of a query.
    fn fetch(
        &mut self,
        statement: Statement,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;
}

/// A row's columns by name; none when the column is not there or holds something else.
pub(in crate::state) trait Columns {
    fn text(&self, column: &str) -> Option<String>;
    fn number(&self, column: &str) -> Option<i64>;
    fn bytes(&self, column: &str) -> Option<Vec<u8>>;
    /// The outer none is an unreadable column, the inner one an empty one.
    fn maybe_text(&self, column: &str) -> Option<Option<String>>;
    /// As [`Columns::maybe_text`].
    fn maybe_number(&self, column: &str) -> Option<Option<i64>>;
}

/// Implements [`Database`] for a connection and [`Columns`] for its rows; the drivers differ in nothing but types.
macro_rules! database {
    ($connection:ty, $row:ty) => {
        impl $crate::state::store::database::Database for $connection {
            type Row = $row;

            async fn execute(
                &mut self,
                statement: $crate::state::store::database::Statement,
            ) -> Result<u64, sqlx::Error> {
                let query = $crate::state::store::database::bound!(statement);
                query.execute(self).await.map(|done| done.rows_affected())
            }

            async fn fetch(
                &mut self,
                statement: $crate::state::store::database::Statement,
            ) -> Result<Vec<$row>, sqlx::Error> {
                $crate::state::store::database::bound!(statement).fetch_all(self).await
            }
        }

        impl $crate::state::store::database::Columns for $row {
            fn text(&self, column: &str) -> Option<String> {
                sqlx::Row::try_get(self, column).ok()
            }

            fn number(&self, column: &str) -> Option<i64> {
                sqlx::Row::try_get(self, column).ok()
            }

            fn bytes(&self, column: &str) -> Option<Vec<u8>> {
                sqlx::Row::try_get(self, column).ok()
            }

            fn maybe_text(&self, column: &str) -> Option<Option<String>> {
                sqlx::Row::try_get(self, column).ok()
            }

            fn maybe_number(&self, column: &str) -> Option<Option<i64>> {
                sqlx::Row::try_get(self, column).ok()
            }
        }
    };
}

/// The driver's query of a [`Statement`].
macro_rules! bound {
    ($statement:expr) => {{
        let $crate::state::store::database::Statement { sql, values } = $statement;
        values.into_iter().fold(sqlx::query(sql), |query, value| match value {
            $crate::state::store::database::Value::Text(text) => query.bind(text),
            $crate::state::store::database::Value::Number(number) => query.bind(number),
            $crate::state::store::database::Value::Bytes(bytes) => query.bind(bytes),
        })
    }};
}

pub(super) use {bound, database};
