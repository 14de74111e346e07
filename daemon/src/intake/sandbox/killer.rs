//! Finds how far a batch goes that ends whoever reads it. Kafka gives only whole batches, so reading ends wherever in
//! the batch it begins, and the first offset behind the batch is found by trying.

/// These many offsets are tried one by one. Most batches that are too large have few records.
const ONE_BY_ONE: i64 = 8;
/// In a longer range, so many offsets are tried once more, since there may be a good batch between two bad ones.
const SAMPLES: i64 = 16;

/// The first offset above `killer` from which reading survives, in the log that ends at `log_end`, which may be that
/// offset. `survives` tries an offset; `None` if it can't tell.
pub(super) fn first_survivor(killer: i64, log_end: i64, mut survives: impl FnMut(i64) -> Option<bool>) -> Option<i64> {
    let begin = killer.saturating_add(ONE_BY_ONE);
    for offset in killer.saturating_add(1)..=begin {
        if offset >= log_end || survives(offset)? {
            return Some(offset);
        }
    }
    let (mut ends, mut step) = (begin, ONE_BY_ONE);
    let mut survivor = loop {
        let candidate = ends.saturating_add(step);
        if candidate >= log_end {
            break log_end;
        }
        if survives(candidate)? {
            break candidate;
        }
        ends = candidate;
        step = step.saturating_mul(2);
    };
    loop {
        while survivor - ends > 1 {
            let middle = ends + (survivor - ends) / 2;
            if survives(middle)? {
                survivor = middle;
            } else {
                ends = middle;
            }
        }
        match sample(begin, survivor, &mut survives)? {
            Some(earlier) => (ends, survivor) = (begin, earlier),
            None => return Some(survivor),
        }
    }
}

/// The first of some offsets between these two from which reading survives.
fn sample(begin: i64, end: i64, survives: &mut impl FnMut(i64) -> Option<bool>) -> Option<Option<i64>> {
    let step = ((end - begin) / SAMPLES).max(2);
    let mut offset = begin + step;
    while offset < end - 1 {
        if survives(offset)? {
            return Some(Some(offset));
        }
        offset += step;
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// The first survivor where reading ends in these ranges, and the number of tries.
    fn find(bad: &[Range<i64>], log_end: i64) -> (i64, u32) {
        let mut tries = 0;
        let killer = bad[0].start;
        let found = first_survivor(killer, log_end, |offset| {
            assert!(offset > killer && offset < log_end, "{offset}");
            tries += 1;
            Some(!bad.iter().any(|bad| bad.contains(&offset)))
        });
        (found.unwrap(), tries)
    }

    #[test]
    fn the_first_offset_behind_the_batch_is_found_with_few_tries() {
        for (bad, log_end) in
            [(10..11, 1_000), (10..12, 12), (10..17, 18), (10..19, 30), (0..500, 501), (5..6, 6), (3..1_003, 1_000_000)]
        {
            let (found, tries) = find(std::slice::from_ref(&bad), log_end);
            assert_eq!(found, bad.end);
            assert!(tries <= 50, "{tries}");
        }
        assert_eq!(first_survivor(10, 1_000, |_| None), None);
    }

    #[test]
    fn a_good_batch_between_bad_ones_is_not_passed() {
        for (bad, first) in [
            (vec![0..1, 2..5, 6..200], 1),
            (vec![0..3, 4..200], 3),
            // Trying in growing steps would jump over the good one.
            (vec![10..100, 110..200, 200..300], 100),
            (vec![10..110, 130..400], 110),
        ] {
            assert_eq!(find(&bad, 1_000).0, first, "{bad:?}");
        }
    }
}
