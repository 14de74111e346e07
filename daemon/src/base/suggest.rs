//! "Did you mean": the known names that are nearest to one that does not exist.

/// The most names that are suggested for one.
const SUGGESTED: usize = 4;

/// Of `known`, those that are most like `wanted`: the nearest ones if only few letters differ, or else those that begin
/// with it, or with which it begins. Case, and whether words are joined by `-` or `_`, do not count.
pub fn nearest<'k>(wanted: &str, known: impl IntoIterator<Item = &'k str>) -> Vec<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let wanted = plain(wanted);
    let mut found: Vec<(usize, &str)> = known.into_iter().map(|name| (distance(&wanted, &plain(name)), name)).collect();
    found.sort();
    found.dedup();
    // A third of the letters may differ: "borkers" is like "brokers", and "x" is like nothing.
    let at_most = wanted.chars().count() / 3;
    let least = found.first().map(|(differ, _)| *differ).filter(|differ| *differ <= at_most);
    let begins = |name: &str| {
        let (wanted, other) = (wanted.as_str(), plain(name));
        wanted.len() >= BEGINNING
            && other.len() >= BEGINNING
            && (other.starts_with(wanted) || wanted.starts_with(&*other))
    };
    let is_like = |(differ, name): &(usize, &str)| least.map_or_else(|| begins(name), |least| *differ == least);
    found.into_iter().filter(is_like).take(SUGGESTED).map(|(_, name)| name).collect()
}

/// The shortest beginning that makes one name like another.
const BEGINNING: usize = 3;

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
            ("head", &["head_timeout"]),
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
