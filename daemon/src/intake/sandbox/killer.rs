//! Finds how far a batch goes that ends whoever reads it. Kafka gives only whole batches, so reading ends wherever in the
//! batch it begins, and the first offset behind the batch is found by trying.

/// The first offset above `killer` from which reading survives, in the log that ends at `log_end`. `survives` tries an
/// offset; `None` if it can't tell.
pub(super) fn first_survivor(killer: i64, log_end: i64, mut survives: impl FnMut(i64) -> Option<bool>) -> Option<i64> {
    let (mut ends, mut step) = (killer, 1_i64);
    let mut survivor = loop {
        let candidate = killer.saturating_add(step);
        if candidate >= log_end {
            break log_end;
        }
        if survives(candidate)? {
            break candidate;
        }
        ends = candidate;
        step = step.saturating_mul(2);
    };
    while survivor - ends > 1 {
        let middle = ends + (survivor - ends) / 2;
        if survives(middle)? {
            survivor = middle;
        } else {
            ends = middle;
        }
    }
    Some(survivor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offset_behind_the_batch_is_found_with_few_tries() {
        for (killer, batch_end, log_end) in
            [(10, 11, 1_000), (10, 12, 12), (10, 17, 18), (0, 500, 501), (5, 6, 6), (3, 1_003, 1_000_000)]
        {
            let mut tries = 0;
            let found = first_survivor(killer, log_end, |offset| {
                assert!(offset > killer && offset < log_end, "{offset}");
                tries += 1;
                Some(offset >= batch_end)
            });
            assert_eq!(found, Some(batch_end));
            assert!(tries <= 22, "{tries}");
        }
        assert_eq!(first_survivor(10, 1_000, |_| None), None);
    }
}
