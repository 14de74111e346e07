//! How long answers took, by what was asked.

use std::time::Duration;

use super::questions::Found;

#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Kind>);

#[derive(Debug)]
struct Kind {
    name: &'static str,
    took: Vec<Duration>,
    /// Answers with nothing in them, and those whose time was over.
    nothing: usize,
    cut: usize,
}

impl Times {
    pub(crate) fn add(&mut self, name: &'static str, took: Duration, found: Found) {
        let kind = self.kind(name);
        kind.took.push(took);
        kind.nothing += usize::from(found.nothing);
        kind.cut += usize::from(found.cut);
    }

    pub(crate) fn extend(&mut self, others: Self) {
        for other in others.0 {
            let kind = self.kind(other.name);
            kind.took.extend(other.took);
            kind.nothing += other.nothing;
            kind.cut += other.cut;
        }
    }

    fn kind(&mut self, name: &'static str) -> &mut Kind {
        let known = self.0.iter().position(|kind| kind.name == name);
        let at = known.unwrap_or_else(|| {
            self.0.push(Kind { name, took: Vec::new(), nothing: 0, cut: 0 });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|kind| kind.took.len()).sum()
    }

    /// The time in milliseconds within which this share of all answers came.
    pub(crate) fn within(&self, share: f64) -> f64 {
        within(self.0.iter().flat_map(|kind| kind.took.iter().copied()).collect(), share)
    }

    /// One line a kind. `cut` says how many pages were not full when their time was over, `none` how many had nothing.
    pub(crate) fn print(&self) {
        println!(
            "{:<28} {:>7} {:>9} {:>9} {:>10} {:>5} {:>5}",
            "by", "count", "median ms", "p95 ms", "longest ms", "cut", "none"
        );
        for Kind { name, took, nothing, cut } in &self.0 {
            let at = |share| within(took.clone(), share);
            let count = took.len();
            println!(
                "{name:<28} {count:>7} {:>9.1} {:>9.1} {:>10.1} {cut:>5} {nothing:>5}",
                at(0.5),
                at(0.95),
                at(1.0)
            );
        }
    }
}

fn within(mut took: Vec<Duration>, share: f64) -> f64 {
    took.sort_unstable();
    let rank = (took.len() as f64 * share).ceil() as usize;
    took.get(rank.max(1) - 1).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_answers_came_within_a_time() {
        let took: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        for (share, millis) in [(0.0, 1.0), (0.5, 10.0), (0.95, 19.0), (1.0, 20.0)] {
            assert!((within(took.clone(), share) - millis).abs() < 1e-9, "{share}");
        }
        assert!(within(Vec::new(), 0.95).abs() < 1e-9);
    }
}
