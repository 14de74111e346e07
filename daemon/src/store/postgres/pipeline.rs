//! Statements that are sent together: they cost one round trip, and not one each.
//!
//! The library sends a statement when its future is polled for the first time, and the server works on statements in the order in
//! which they come. So each one is polled once, in order, before any answer is awaited. Each statement still sees what was committed
//! before it began, so a later one may decide by what an earlier one locked.
//!
//! Nothing here begins or ends a transaction; `transaction` does.

use std::borrow::Cow;

use deadpool_postgres::Object;
use futures_util::future::{BoxFuture, poll_immediate};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::cells::Param;
use super::error::PostgresError;

/// Statements with their values, in the order in which they are sent.
pub(super) struct Pipeline<'v>(Vec<Planned<'v>>);

struct Planned<'v> {
    sql: Cow<'static, str>,
    params: Vec<Param<'v>>,
    /// It inserts rows that were not there a moment ago.
    is_new: bool,
}

/// Where the answer to a statement stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

impl<'v> Pipeline<'v> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn push(&mut self, sql: impl Into<Cow<'static, str>>, params: Vec<Param<'v>>) -> Place {
        self.0.push(Planned { sql: sql.into(), params, is_new: false });
        Place(self.0.len() - 1)
    }

    /// An insert of rows that were not there a moment ago. A row that is there all the same was inserted by another process since we
    /// looked. Then what was decided without it is void, and the whole transaction is: see [`PostgresError::Met`].
    pub(super) fn push_new(&mut self, sql: impl Into<Cow<'static, str>>, params: Vec<Param<'v>>) {
        self.0.push(Planned { sql: sql.into(), params, is_new: true });
    }

    /// Only the first time on a connection does this ask the server.
    pub(super) async fn prepared(self, client: &Object) -> Result<Prepared<'v>, PostgresError> {
        let mut prepared = Vec::with_capacity(self.0.len());
        for planned in self.0 {
            prepared.push((client.prepare_cached(&planned.sql).await?, planned));
        }
        Ok(Prepared(prepared))
    }
}

/// Statements that are ready to be sent.
pub(super) struct Prepared<'v>(Vec<(Statement, Planned<'v>)>);

impl<'v> Prepared<'v> {
    /// Sends all statements, in their order.
    ///
    /// # Errors
    /// One could not be sent, for example because a value does not fit its type. Those after it were not sent either.
    pub(super) async fn send<'s>(self, client: &'s Object) -> Result<Sent<'s>, PostgresError>
    where
        'v: 's,
    {
        let mut sent = Vec::with_capacity(self.0.len());
        for (statement, Planned { params, is_new, .. }) in self.0 {
            let answer = async move { client.query(&statement, &borrowed(&params)).await };
            sent.push((is_new, OnItsWay::send(answer).await.unless_refused()?));
        }
        Ok(Sent(sent))
    }
}

fn borrowed<'p>(params: &'p [Param<'_>]) -> Vec<&'p (dyn ToSql + Sync)> {
    params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect()
}

/// A statement that was sent, or could not be.
pub(super) struct OnItsWay<'s, T> {
    answer: BoxFuture<'s, Result<T, Error>>,
    /// What came of it at once.
    early: Option<Result<T, Error>>,
}

impl<'s, T> OnItsWay<'s, T> {
    pub(super) async fn send(answer: impl Future<Output = Result<T, Error>> + Send + 's) -> Self {
        let mut answer: BoxFuture<'s, Result<T, Error>> = Box::pin(answer);
        let early = poll_immediate(&mut answer).await;
        Self { answer, early }
    }

    /// # Errors
    /// It could not be sent. An error of the server is an answer, even if it came at once: the server may have refused this statement
    /// because of an earlier one whose answer was not looked at yet.
    pub(super) fn unless_refused(self) -> Result<Self, Error> {
        match self.early {
            Some(Err(error)) if error.as_db_error().is_none() => Err(error),
            early => Ok(Self { answer: self.answer, early }),
        }
    }

    pub(super) async fn answer(self) -> Result<T, Error> {
        match self.early {
            Some(answer) => answer,
            None => self.answer.await,
        }
    }
}

/// Statements that were all sent. If this is dropped, the connection reads their answers and forgets them.
pub(super) struct Sent<'s>(Vec<(bool, OnItsWay<'s, Vec<Row>>)>);

impl Sent<'_> {
    /// Waits for every answer, whatever the earlier ones are.
    pub(super) async fn answers(self) -> Result<Answers, Failed> {
        let (mut answers, mut failed) = (Vec::with_capacity(self.0.len()), None);
        for (is_new, statement) in self.0 {
            match statement.answer().await {
                Ok(rows) => answers.push(rows),
                Err(error) if failed.is_none() => failed = Some(Failed { error, is_new }),
                // It failed because of the first one.
                Err(_) => {}
            }
        }
        failed.map_or(Ok(Answers(answers)), Err)
    }
}

/// The rows that statements answered with.
pub(super) struct Answers(Vec<Vec<Row>>);

impl Answers {
    /// The rows of one answer, which are given once. A statement that was not asked has none.
    pub(super) fn take(&mut self, place: impl Into<Option<Place>>) -> Vec<Row> {
        let rows = place.into().and_then(|place| self.0.get_mut(place.0));
        rows.map(std::mem::take).unwrap_or_default()
    }
}

/// The first statement that failed.
pub(super) struct Failed {
    error: Error,
    is_new: bool,
}

impl Failed {
    /// What it means where no COMMIT was sent: nothing happened.
    pub(super) fn alone(self) -> PostgresError {
        let is_there = self.error.code() == Some(&SqlState::UNIQUE_VIOLATION);
        if self.is_new && is_there { PostgresError::Met } else { PostgresError::Sql(self.error) }
    }

    /// What it means where COMMIT was sent behind it. If the server says that this statement failed, COMMIT was answered with ROLLBACK,
    /// and nothing happened. The end of the connection says nothing of the kind.
    pub(super) fn before_commit(self) -> PostgresError {
        let severity = self.error.as_db_error().and_then(|error| error.parsed_severity());
        if severity == Some(Severity::Error) { self.alone() } else { PostgresError::Commit(self.error) }
    }
}
