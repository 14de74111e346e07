//! Watermarks that an operator moves.

use axum::Json;
use scale_callback_serve::text::printable;

use super::super::extract::{Answer, Body, time};
use super::super::problem::Problem;
use super::super::shapes::{ResetShape, RewindShape, SkipShape};
use crate::intake::partition::ResetTo;
use crate::ops::Session;
use crate::ops::resets::ResetAsk;

/// Read records again.
///
/// Partitions of this instance are given up in order and read again from an earlier place. What the store knows of their records,
/// pending or ended, is not sent again: only what it does not know is. Other instances must be asked for their own partitions.
/// Errors: not_found for a topic or a partition that is not read; conflict if there is nothing to do, or if the place lies above
/// the watermark; too_many_rows if more than at_most records may be sent again because their callbacks may be pruned; not_ready
/// when the Kafka consumer does not answer.
#[utoipa::path(post, path = "/offsets/rewind", tag = "offsets", request_body = RewindShape,
    responses((status = 200, body = ResetShape)))]
pub(super) async fn rewind_offsets(session: Session, body: Body<RewindShape>) -> Answer<ResetShape> {
    let RewindShape { to, topic, partition, dry_run, at_most } = body.value;
    let ask = ResetAsk { topic, partition, to: place(&to)?, at_most, dry_run };
    Ok(Json(ResetShape::new(dry_run, &session.rewind_offsets(ask).await?)))
}

/// Leave records of a partition out.
///
/// The partition is given up in order and read on from a later place. The records between its watermark and that place are never
/// read, so their callbacks are lost, except those that are in the store already.
/// Errors: not_found for a topic or a partition that is not read; conflict if there is nothing to do, if the place lies below the
/// watermark, or if another instance reads the partition; too_many_rows if more than at_most records would be left out; not_ready
/// when the Kafka consumer does not answer.
#[utoipa::path(post, path = "/offsets/skip", tag = "offsets", request_body = SkipShape,
    responses((status = 200, body = ResetShape)))]
pub(super) async fn skip_offsets(session: Session, body: Body<SkipShape>) -> Answer<ResetShape> {
    let SkipShape { to, topic, partition, dry_run, at_most } = body.value;
    let ask = ResetAsk { topic, partition: Some(partition), to: place(&to)?, at_most, dry_run };
    Ok(Json(ResetShape::new(dry_run, &session.skip_offsets(ask).await?)))
}

/// Reads where reading goes on.
fn place(text: &str) -> Result<ResetTo, Problem> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = || {
        let shown = printable(text.as_bytes(), 64);
        Problem::invalid(format!(
            "{shown:?} is no place in a log; write a time, such as \"2026-11-24T12:00:00Z\", an offset, \"earliest\" or \"end\""
        ))
    };
    match text {
        "earliest" => Ok(ResetTo::Earliest),
        "end" => Ok(ResetTo::End),
        _ if is_number => text.parse().map(ResetTo::Offset).map_err(|_| wrong()),
        _ => time(text).map(ResetTo::Time).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_time_an_offset_or_an_end_of_the_log() {
        let read = |text: &str| place(text).ok();
        assert_eq!(read("earliest"), Some(ResetTo::Earliest));
        assert_eq!(read("end"), Some(ResetTo::End));
        assert_eq!(read("120"), Some(ResetTo::Offset(120)));
        let midnight = crate::base::clock::Timestamp::from_millis(1_795_910_400_000);
        assert_eq!(read("2026-11-29"), Some(ResetTo::Time(midnight)));
        assert_eq!(read("2026-11-29T01:00:00+01:00"), Some(ResetTo::Time(midnight)));
        for wrong in ["", "-5", "2h", "latest", "99999999999999999999", "2026-13-01"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
