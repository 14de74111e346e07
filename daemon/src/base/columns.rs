//! Text that fits a terminal: which columns of a table are shown and how wide, which parts of a line, and where prose is
//! wrapped. All of it is pure; the width is an argument.
//!
//! Widths are counted in characters. A character that a terminal shows two columns wide counts as one.

pub use scale_callback_serve::text::wrapped;

/// What one column of a table needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The width at which nothing is cut.
    pub wanted: usize,
    /// The narrowest width at which the column is still of use.
    pub least: usize,
    /// The column has these two widths only, and none between them.
    pub is_stepped: bool,
    /// The order in which columns are left out: the highest rank first, and rank 0 never.
    pub rank: u8,
}

/// The width of each column so that all of them fit into `room`, with `gap` between two of them. `None` for a column that
/// is left out. The whole answer is `None` if even the columns that must stay do not fit.
///
/// Columns give way in this order: the widest are narrowed, as far as they may be; then the column of the highest rank
/// is left out, and the others have their full width again.
pub fn fit(needs: &[Need], gap: usize, room: usize) -> Option<Vec<Option<usize>>> {
    let mut shown: Vec<usize> = (0..needs.len()).collect();
    loop {
        let gaps = gap.saturating_mul(shown.len().saturating_sub(1));
        let chosen: Vec<Need> = shown.iter().map(|index| needs[*index]).collect();
        if let Some(widths) = room.checked_sub(gaps).and_then(|room| narrowed(&chosen, room)) {
            let mut all = vec![None; needs.len()];
            shown.iter().zip(widths).for_each(|(index, width)| all[*index] = Some(width));
            return Some(all);
        }
        // Of two columns with one rank, the later one is left out.
        let (place, rank) = shown.iter().map(|index| needs[*index].rank).enumerate().max_by_key(|(_, rank)| *rank)?;
        if rank == 0 {
            return None;
        }
        shown.remove(place);
    }
}

/// The widths of columns after the widest were narrowed until all fit. `None` if they do not fit at their least widths.
fn narrowed(needs: &[Need], room: usize) -> Option<Vec<usize>> {
    let least = |need: &Need| need.least.min(need.wanted);
    if needs.iter().map(least).sum::<usize>() > room {
        return None;
    }
    let mut widths: Vec<usize> = needs.iter().map(|need| need.wanted).collect();
    while widths.iter().sum::<usize>() > room {
        let can_shrink = |(index, width): &(usize, &mut usize)| **width > least(&needs[*index]);
        let (index, widest) = widths.iter_mut().enumerate().filter(can_shrink).max_by_key(|(_, width)| **width)?;
        *widest = if needs[index].is_stepped { least(&needs[index]) } else { *widest - 1 };
    }
    Some(widths)
}

/// The text, or its beginning and an ellipsis if it is wider than `width`.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain("…".chars().take(width)).collect()
}

/// The parts of a line that fit into `width`, with two spaces between them. Each part has a rank as in [`Need`]. Parts are
/// left out until the others fit, and what remains is cut if it must be.
pub fn line_of(parts: &[(String, u8)], width: usize) -> String {
    let need = |(text, rank): &(String, u8)| {
        let wanted = text.chars().count();
        Need { wanted, least: wanted, is_stepped: false, rank: *rank }
    };
    let needs: Vec<Need> = parts.iter().map(need).collect();
    let kept: Vec<&str> = match fit(&needs, 2, width) {
        Some(widths) => {
            parts.iter().zip(widths).filter(|(_, width)| width.is_some()).map(|((text, _), _)| text.as_str()).collect()
        }
        None => parts.iter().filter(|(_, rank)| *rank == 0).map(|(text, _)| text.as_str()).collect(),
    };
    cut(&kept.join("  "), width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn need(wanted: usize, least: usize, rank: u8) -> Need {
        Need { wanted, least, is_stepped: false, rank }
    }

    #[test]
    fn columns_are_narrowed_then_left_out_by_rank_then_given_up() {
        let needs = [need(10, 10, 0), need(12, 6, 2), Need { is_stepped: true, ..need(8, 4, 1) }];
        assert_eq!(fit(&needs, 2, 34), Some(vec![Some(10), Some(12), Some(8)]));
        assert_eq!(fit(&needs, 2, 31), Some(vec![Some(10), Some(9), Some(8)]), "the widest that may shrink");
        assert_eq!(fit(&needs, 2, 26), Some(vec![Some(10), Some(8), Some(4)]), "a stepped one has no width between");
        assert_eq!(fit(&needs, 2, 23), Some(vec![Some(10), None, Some(8)]));
        assert_eq!(fit(&needs, 2, 15), Some(vec![Some(10), None, None]));
        assert_eq!(fit(&needs, 2, 9), None);
        assert_eq!(fit(&[], 2, 0), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn what_fits_is_never_wider_than_the_room(
            needs in proptest::collection::vec((1..40_usize, 1..40_usize, any::<bool>(), 0..4_u8), 0..8),
            room in 0..200_usize,
        ) {
            let needs: Vec<_> = needs
                .into_iter()
                .map(|(wanted, least, is_stepped, rank)| Need { wanted, least: least.min(wanted), is_stepped, rank })
                .collect();
            match fit(&needs, 2, room) {
                Some(widths) => {
                    let shown: Vec<_> = widths.iter().flatten().collect();
                    let gaps = 2 * shown.len().saturating_sub(1);
                    prop_assert!(shown.iter().copied().sum::<usize>() + gaps <= room);
                    for (need, width) in needs.iter().zip(&widths) {
                        prop_assert!(width.is_some() || need.rank > 0);
                        prop_assert!(width.is_none_or(|width| (need.least..=need.wanted).contains(&width)));
                    }
                }
                None => {
                    let staying: Vec<_> = needs.iter().filter(|need| need.rank == 0).collect();
                    let least = staying.iter().map(|need| need.least).sum::<usize>() + 2 * staying.len().saturating_sub(1);
                    prop_assert!(least > room);
                }
            }
        }

        #[test]
        fn a_line_and_a_cut_text_are_never_too_wide(words in proptest::collection::vec("[a-zä]{0,20}", 0..9), width in 0..60_usize) {
            let parts: Vec<_> = words.iter().enumerate().map(|(rank, word)| (word.clone(), rank as u8)).collect();
            prop_assert!(line_of(&parts, width).chars().count() <= width);
            prop_assert!(cut(&words.concat(), width).chars().count() <= width);
            let text = words.join(" ");
            let prose = wrapped(&text, 30, 4);
            prop_assert!(prose.lines().all(|line| line.chars().count() <= 30), "{prose}");
            let words_of = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words_of(&prose), words_of(&text));
        }
    }
}
