//! Whether a run was what it was planned to be. A fault that did not come proves nothing. Pure.

use super::incidents::Incident;
use super::plan::{Goals, Kind};
use super::takeover::Takeover;

/// COMMITs that were cut.
pub(crate) fn cuts(incidents: &[Incident]) -> u64 {
    sum(incidents, |kind| matches!(kind, Kind::Cut | Kind::KillAtCut))
}

/// Sessions that PostgreSQL ended.
pub(crate) fn terminated(incidents: &[Incident]) -> u64 {
    sum(incidents, |kind| kind == Kind::Terminate)
}

fn sum(incidents: &[Incident], of: impl Fn(Kind) -> bool) -> u64 {
    incidents.iter().filter(|incident| of(incident.kind)).map(|incident| incident.count).sum()
}

/// What was planned and did not happen, a sentence each.
pub(crate) fn missed(goals: &Goals, incidents: &[Incident], takeovers: &[Takeover]) -> Vec<String> {
    let mut missed = Vec::new();
    for (kind, planned) in &goals.times {
        // A kill that was to come at a cut, and came without one, is another fault.
        let came = |incident: &&Incident| incident.kind == *kind && (*kind != Kind::KillAtCut || incident.count > 0);
        let came = incidents.iter().filter(came).count();
        if came < *planned {
            missed.push(format!("{}: planned {planned}, and {came} came", kind.name()));
        }
    }
    for (what, count, goal) in
        [("COMMITs cut", cuts(incidents), goals.cuts), ("sessions terminated", terminated(incidents), goals.terminated)]
    {
        if count < goal {
            missed.push(format!("{what}: {count}, and at least {goal} were planned"));
        }
    }
    if goals.takeover && takeovers.iter().all(|takeover| takeover.is_disturbed) {
        missed.push("no takeover was measured with no other fault near".to_owned());
    }
    missed
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_was_planned_must_have_come() {
        let incident = |kind, count| Incident { count, ..Incident::until_now(kind, Instant::now(), None) };
        let all = [
            incident(Kind::Cut, 7),
            incident(Kind::KillAtCut, 1),
            incident(Kind::Terminate, 2),
            incident(Kind::Terminate, 3),
        ];
        let times = [(Kind::Cut, 1), (Kind::KillAtCut, 1), (Kind::Terminate, 2)].into_iter().collect();
        let goals = Goals { times, cuts: 8, terminated: 5, takeover: true };
        let measured = Takeover { run: 1, took: Duration::ZERO, is_disturbed: false };
        let missed_of = |incidents: &[Incident], takeovers: &[Takeover]| missed(&goals, incidents, takeovers).len();
        assert_eq!(missed_of(&all, &[measured]), 0);
        assert_eq!(missed_of(&all, &[Takeover { is_disturbed: true, ..measured }]), 1);
        assert_eq!(missed_of(&all[1..], &[measured]), 2, "no COMMITs were cut, and so too few in all");
        assert_eq!(missed_of(&all[..3], &[measured]), 2, "one fault less, and too few sessions");
        let without_cut = [incident(Kind::Cut, 8), incident(Kind::KillAtCut, 0), incident(Kind::Terminate, 5)];
        assert_eq!(missed_of(&without_cut, &[measured]), 2);
    }
}
