//! Pages of callbacks by when an attempt failed: attempts are read along the walks of a search, in pieces, and the rows of a callback are
//! looked at when one of its attempts may have failed in the time that is asked for.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use futures_util::future::try_join;
use tokio_postgres::types::ToSql;

use super::super::cells::Uuid;
use super::super::engine::rows::id_of;
use super::super::error::PostgresError;
use super::scan::{self, below, bounds};
use crate::model::callback::CallbackId;
use crate::store::failed_between::{HOUR_MILLIS, Walk};
use crate::store::reads::{CallbackFilter, Found, Page};
use crate::store::search::{Filling, STRIDE, Search, Table};

/// The most callbacks whose attempts are read at once. Their rows are small: an id, and whether one of the attempts failed in the time
/// that is asked for.
const LONGEST_PIECE: usize = 1_024;

/// The ids of callbacks that match. `queues` has the numbers of the filter's queues.
pub(super) async fn scan(
    client: &impl GenericClient,
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    page: &Page,
    walks: &[Walk],
) -> Result<Found<CallbackId>, PostgresError> {
    let mut filling = Filling::new(page);
    // As many as the page needs if all match, and more where they don't.
    let mut at_once = page.limit.saturating_add(1).clamp(16, STRIDE);
    // Every hour of the time that is asked for gives so many callbacks.
    let mut piece = at_once;
    for walk in walks {
        let mut left = bounds(&walk.range);
        while let Some((floor, last)) = left {
            let tried = tried(client, walk, (floor, last), piece).await?;
            let oldest = tried.last().map(|(id, _)| *id);
            let cut = oldest.filter(|_| tried.len() == piece);
            left = cut.and_then(below).map(|last| (floor, last));
            for ids in failed_in_time(&tried).chunks(at_once) {
                for id in matching(client, ids, filter, queues, walk).await? {
                    if !filling.list(id) {
                        return Ok(filling.end());
                    }
                }
                if ids.last().is_some_and(|id| filling.is_over(*id)) {
                    return Ok(filling.end());
                }
            }
            if oldest.is_some_and(|id| filling.is_over(id)) {
                return Ok(filling.end());
            }
            at_once = STRIDE;
            piece = piece.saturating_mul(4).min(LONGEST_PIECE);
        }
    }
    Ok(filling.end())
}

fn failed_in_time(tried: &[(CallbackId, bool)]) -> Vec<CallbackId> {
    tried.iter().filter(|(_, failed_in_time)| *failed_in_time).map(|(id, _)| *id).collect()
}

/// A piece of the callbacks along whose attempts a walk leads, newest event first. Whether an attempt failed in the time that is asked
/// for is a column and no condition, so that a search which finds little ends in time.
async fn tried(
    client: &impl GenericClient,
    walk: &Walk,
    (floor, last): (Uuid, Uuid),
    piece: usize,
) -> Result<Vec<(CallbackId, bool)>, PostgresError> {
    let (from, until) = (walk.span.from.millis(), walk.span.until.millis());
    let limit = i64::try_from(piece).unwrap_or(i64::MAX);
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&floor, &last, &limit, &from, &until];
    let sql = match &walk.hours {
        // The limit of each hour keeps the order of its index, so that no hour is read as a whole. A callback that is among the first
        // ones of all hours is among the first ones of each of its hours.
        Some((first, last)) => {
            values.extend([first as &(dyn ToSql + Sync), last]);
            format!(
                "SELECT failed.id, bool_or(failed.in_time)
                 FROM generate_series($6::bigint, $7::bigint) AS hours (hour)
                 CROSS JOIN LATERAL (SELECT id, bool_or(begun_at >= $4 AND begun_at < $5) AS in_time FROM attempt
                                     WHERE begun_at / {HOUR_MILLIS} = hours.hour AND outcome <> 'ok' AND id >= $1 AND id <= $2
                                     GROUP BY id ORDER BY id DESC LIMIT $3) AS failed
                 GROUP BY failed.id ORDER BY failed.id DESC LIMIT $3"
            )
        }
        None => "SELECT id, bool_or(outcome <> 'ok' AND begun_at >= $4 AND begun_at < $5) FROM attempt
                 WHERE id >= $1 AND id <= $2 GROUP BY id ORDER BY id DESC LIMIT $3"
            .to_owned(),
    };
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &values).await?;
    rows.iter().map(|row| Ok((id_of(row)?, row.try_get(1)?))).collect()
}

/// Those of these callbacks of which a row matches, in the same order.
async fn matching(
    client: &impl GenericClient,
    ids: &[CallbackId],
    filter: &CallbackFilter,
    queues: Option<&HashSet<i64>>,
    walk: &Walk,
) -> Result<Vec<CallbackId>, PostgresError> {
    let mut found = HashSet::new();
    // Both are sent at once, and the server reads one after the other. Pending first: a callback moves from there to settled, so it
    // can't be missed between the two reads.
    let (pending, settled) = (walk.search(Table::Pending), walk.search(Table::Settled));
    for search in [&pending, &settled] {
        client.prepare_cached(&statement(search)).await?;
    }
    let (of_pending, of_settled) = try_join(rows(client, &pending, ids), rows(client, &settled, ids)).await?;
    for row in of_pending.iter().chain(&of_settled) {
        let candidate = scan::read(row)?;
        if candidate.matches(filter, queues) {
            found.insert(candidate.id);
        }
    }
    Ok(ids.iter().copied().filter(|id| found.contains(id)).collect())
}

/// The rows of callbacks in one table.
async fn rows(
    client: &impl GenericClient,
    search: &Search,
    ids: &[CallbackId],
) -> Result<Vec<tokio_postgres::Row>, PostgresError> {
    let ids: Vec<Uuid> = ids.iter().copied().map(Uuid::from).collect();
    // Only the days between these two are looked at.
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let failed = search.failed.map(|span| (span.from.millis(), span.until.millis()));
    let read_at = search.range.read_at.map(|(since, until)| (since.millis(), until.millis()));
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&ids, first, last];
    for (from, until) in failed.iter().chain(&read_at) {
        values.extend([from as &(dyn ToSql + Sync), until]);
    }
    let statement = client.prepare_cached(&statement(search)).await?;
    Ok(client.query(&statement, &values).await?)
}

/// The statement of [`rows`].
fn statement(search: &Search) -> String {
    let (table, columns, at) = (search.table.name(), search.columns("$4", "$5"), search.table.read_at());
    let is_read_then = search.range.read_at.map_or_else(String::new, |_| format!("AND {at} >= $6 AND {at} < $7"));
    format!("SELECT id, {columns} FROM {table} WHERE id = ANY($1) AND id >= $2 AND id <= $3 {is_read_then}")
}
