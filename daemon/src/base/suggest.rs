//! "Did you mean": the known names that are nearest to one that does not exist.

/// The most names that are suggested for one.
const SUGGESTED: usize = 4;

/// Of `known`, those that are most like `wanted`, the nearest first. A name is like another if few letters differ, or if
/// one begins with the other. Case, and whether words are joined by `-` or `_`, do not count.
pub fn nearest<'k>(wanted: &str, known: impl IntoIterator<Item = &'k str>) -> Vec<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let wanted = plain(wanted);
    // A third of the letters may differ: "borkers" is like "brokers", and "x" is like nothing.
    let at_most = wanted.chars().count() / 3;
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let other = plain(name);
            let differ = distance(&wanted, &other);
            let begins =
                wanted.len() >= 3 && other.len() >= 3 && (other.starts_with(&wanted) || wanted.starts_with(&other));
            (differ <= at_most || begins).then_some((differ, name))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(SUGGESTED).map(|(_, name)| name).collect()
}

/// `a`, `a or b`, `a, b or c`.
pub fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// How many letters must be changed, added, left out, or swapped with their neighbour, to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let changed = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["brokers", "group", "topics", "head_timeout", "total_timeout"];
        for (wanted, right) in [
            ("broker", &["brokers"][..]),
            ("borkers", &["brokers"]),
            ("Topics", &["topics"]),
            ("head-timeout", &["head_timeout"]),
            ("head_timeuot", &["head_timeout"]),
            ("nonsense", &[]),
            ("x", &[]),
            ("", &[]),
        ] {
            assert_eq!(nearest(wanted, known), right, "{wanted}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }

    #[test]
    fn names_are_joined_as_people_write_them() {
        assert_eq!(alternatives(&["a"]), "a");
        assert_eq!(alternatives(&["a", "b", "c"]), "a, b or c");
    }
}
