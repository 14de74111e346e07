//! Pages of callbacks by when an attempt failed: attempts are read along the walks of a search, in pieces, and the rows of a callback are
//! looked at when one of its attempts may have failed in the time that is asked for.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::super::cells::Uuid;
use super::super::engine::rows::id_of;
use super::super::error::PostgresError;
use super::scan::{self, below, bounds};
use crate::model::callback::CallbackId;
use crate::store::failed_between::{HOUR_MILLIS, Walk};
use crate::store::reads::{CallbackFilter, Found, Page};
use crate::store::search::{Filling, STRIDE, Search, Table};

/// Attempts that are read at once. They are small: an id, and whether the attempt is of the time that is asked for.
const PIECE: usize = 1_024;

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
    for walk in walks {
        let mut left = bounds(&walk.range);
        while let Some((floor, last)) = left {
            let attempts = attempts(client, walk, floor, last).await?;
            let oldest = attempts.last().map(|(id, _)| *id);
            let cut = oldest.filter(|_| attempts.len() == PIECE);
            left = cut.and_then(below).map(|last| (floor, last));
            for ids in to_look_at(&attempts, cut).chunks(at_once) {
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
        }
    }
    Ok(filling.end())
}

/// The callbacks of which an attempt failed in the time that is asked for. The last one of a piece that was `cut` off there may have
/// more attempts than the piece holds, so it is among them in any case.
fn to_look_at(attempts: &[(CallbackId, bool)], cut: Option<CallbackId>) -> Vec<CallbackId> {
    let failed = attempts.iter().filter(|(_, failed_in_time)| *failed_in_time).map(|(id, _)| *id);
    let mut ids: Vec<_> = failed.chain(cut).collect();
    ids.dedup();
    ids
}

/// A piece of the attempts of a walk, newest event first. Whether an attempt is of the time that is asked for is a column and no
/// condition, so that a search which finds little ends in time.
async fn attempts(
    client: &impl GenericClient,
    walk: &Walk,
    floor: Uuid,
    last: Uuid,
) -> Result<Vec<(CallbackId, bool)>, PostgresError> {
    let (from, until) = (walk.span.from.millis(), walk.span.until.millis());
    let limit = i64::try_from(PIECE).unwrap_or(i64::MAX);
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![&floor, &last, &limit, &from, &until];
    let sql = match &walk.hours {
        // The limit of each hour keeps the order of its index, so that no hour is read as a whole.
        Some((first, last)) => {
            values.extend([first as &(dyn ToSql + Sync), last]);
            format!(
                "SELECT failed.id, failed.begun_at >= $4 AND failed.begun_at < $5
                 FROM generate_series($6::bigint, $7::bigint) AS hours (hour)
                 CROSS JOIN LATERAL (SELECT id, begun_at FROM attempt
                                     WHERE begun_at / {HOUR_MILLIS} = hours.hour AND outcome <> 'ok' AND id >= $1 AND id <= $2
                                     ORDER BY id DESC LIMIT $3) AS failed
                 ORDER BY failed.id DESC LIMIT $3"
            )
        }
        None => "SELECT id, outcome <> 'ok' AND begun_at >= $4 AND begun_at < $5 FROM attempt
                 WHERE id >= $1 AND id <= $2 ORDER BY id DESC LIMIT $3"
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
    // Pending first: a callback moves from there to settled, so it can't be missed between the two reads.
    for table in [Table::Pending, Table::Settled] {
        let search = walk.search(table);
        for row in rows(client, &search, ids).await? {
            let candidate = scan::read(&row)?;
            if candidate.matches(filter, queues) {
                found.insert(candidate.id);
            }
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
    let (table, columns) = (search.table.name(), search.columns("$4", "$5"));
    let at = search.table.read_at();
    let is_read_then = if read_at.is_some() { format!("AND {at} >= $6 AND {at} < $7") } else { String::new() };
    let sql = format!("SELECT id, {columns} FROM {table} WHERE id = ANY($1) AND id >= $2 AND id <= $3 {is_read_then}");
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.query(&statement, &values).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_callback_of_a_piece_is_always_looked_at() {
        let id = |n| CallbackId::from_bytes([n; 16]);
        let attempts = [(id(9), true), (id(9), true), (id(8), false), (id(7), true), (id(7), false), (id(6), false)];
        assert_eq!(to_look_at(&attempts, None), [id(9), id(7)]);
        assert_eq!(to_look_at(&attempts, Some(id(6))), [id(9), id(7), id(6)]);
        assert_eq!(to_look_at(&attempts[..5], Some(id(7))), [id(9), id(7)]);
    }
}
