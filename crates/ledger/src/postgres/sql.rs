//! Statements with parameters, sent in one go: the types are known, so nobody has to ask for them.

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, Transaction};

/// A parameter with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A value that is a parameter.
pub(crate) trait Column: ToSql + Sync {
    /// The type of the column that it goes to.
    fn of(&self) -> Type;
}

macro_rules! columns {
    ($($rust:ty => $postgres:ident),* $(,)?) => {
        $(impl Column for $rust {
            fn of(&self) -> Type {
                Type::$postgres
            }
        })*
    };
}

columns! {
    i64 => INT8,
    Option<i64> => INT8,
    &str => TEXT,
    String => TEXT,
    Option<String> => TEXT,
    Option<&str> => TEXT,
    &[u8] => BYTEA,
    Vec<i64> => INT8_ARRAY,
    Vec<&str> => TEXT_ARRAY,
    Vec<&[u8]> => BYTEA_ARRAY,
}

/// The parameters of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$((&$value as &(dyn tokio_postgres::types::ToSql + Sync),
             $crate::postgres::sql::Column::of(&$value))),*]
    };
}
pub(crate) use params;

/// What a transaction can be asked.
#[async_trait]
pub(crate) trait Sql {
    /// All rows.
    async fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error>;
    /// The row, if there is one.
    async fn row(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Option<Row>, Error>;
    /// How many rows it was done to.
    async fn act(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Error>;
}

#[async_trait]
impl Sql for Transaction<'_> {
    async fn rows(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        self.query_typed(sql, parameters).await
    }

    async fn row(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Option<Row>, Error> {
        self.query_typed_opt(sql, parameters).await
    }

    async fn act(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Error> {
        self.execute_typed(sql, parameters).await
    }
}

/// A statement that SQLite has too, whose parameters are `?1`, with PostgreSQL's `$1`.
pub(crate) fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}
