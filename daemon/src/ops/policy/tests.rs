use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn caller(rights: Rights) -> Caller {
    Caller::operator("someone", "somewhere", rights)
}

fn limited(rights: Rights, teams: &[&str]) -> Caller {
    Caller { teams: TeamLimit::of(teams.iter().map(|team| (*team).to_owned())), ..caller(rights) }
}

const SETS: [Rights; 6] = [
    Rights::READ,
    Rights::OPERATE,
    Rights::SECRETS,
    Rights::READ.and(Rights::SECRETS),
    Rights::ALL,
    Rights::OPERATE.and(Rights::READ),
];

#[test]
fn each_operation_has_one_name_and_one_right() {
    let names: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.name()).collect();
    assert_eq!(names.len(), Operation::ALL.len(), "two operations of one name");
    for operation in Operation::ALL {
        assert_eq!(Operation::by_name(operation.name()), Some(*operation));
        assert!(!operation.purpose().ends_with('.'), "{operation:?}");
    }
    assert_eq!(Operation::by_name("nonsense"), None);
}

#[test]
fn what_needs_more_than_read_is_audited_and_nothing_else_is() {
    for operation in Operation::ALL {
        assert_eq!(operation.needs() != Right::Read, operation.action().is_some(), "{operation:?}");
    }
    let actions: BTreeSet<_> = Operation::ALL.iter().filter_map(|operation| operation.action()).collect();
    assert_eq!(actions.len(), Operation::ALL.iter().filter(|operation| operation.action().is_some()).count());
}

#[test]
fn a_caller_may_do_what_its_rights_say_and_no_more() {
    for rights in SETS.into_iter().chain([Rights::default()]) {
        for operation in Operation::ALL {
            let expected = rights.has(operation.needs());
            assert_eq!(check(&caller(rights), *operation).is_ok(), expected, "{rights:?} {operation:?}");
            assert_eq!(check_team(&caller(rights), *operation, "team_a").is_ok(), expected, "{rights:?} {operation:?}");
        }
        assert_eq!(sees_urls(&caller(rights)), rights.has(Right::Operate), "{rights:?}");
    }
    // The unix socket's user has every right.
    for operation in Operation::ALL {
        assert_eq!(check(&Caller::unix_user(1000), *operation), Ok(()));
    }
}

#[test]
fn a_limited_caller_does_nothing_to_other_teams_or_to_the_installation() {
    for rights in SETS {
        for operation in Operation::ALL {
            let caller = limited(rights, &["team_a", "team_b"]);
            let allowed = rights.has(operation.needs()) && operation.subject() != Subject::Installation;
            assert_eq!(check(&caller, *operation).is_ok(), allowed, "{rights:?} {operation:?}");
            for (team, own) in [("team_a", true), ("team_b", true), ("team_c", false), ("team", false), ("", false)] {
                let answer = check_team(&caller, *operation, team);
                assert_eq!(answer.is_ok(), allowed && own, "{rights:?} {operation:?} {team}");
            }
        }
    }
}

#[test]
fn what_is_about_a_team_is_audited_by_the_team() {
    for operation in Operation::ALL.iter().filter(|operation| operation.action().is_some()) {
        let by_team = operation.subject() == Subject::Team;
        assert!(!by_team || operation.is_audited_by_team(), "{operation:?}");
    }
    let others: Vec<_> = Operation::ALL.iter().filter(|operation| !operation.is_audited_by_team()).collect();
    let audited: Vec<_> = others.iter().filter_map(|operation| operation.action()).collect();
    let expected = [
        "offsets.accept",
        "offsets.rewind",
        "offsets.skip",
        "clock.accept",
        "log.level",
        "delivery.pause",
        "delivery.resume",
        "token.create",
        "token.revoke",
    ];
    assert_eq!(audited, expected);
}

#[test]
fn a_refusal_names_what_is_missing() {
    let denied = check(&caller(Rights::OPERATE), Operation::RevealKey).expect_err("it lacks secrets");
    assert_eq!(
        denied.to_string(),
        "to reveal the value of a key the right \"secrets\" is needed; this caller's rights: operate"
    );
    let denied = check(&limited(Rights::READ, &["team_a"]), Operation::Status).expect_err("it is limited");
    assert_eq!(
        denied.to_string(),
        "this caller is limited to some teams; to see how the daemon is doing a token for all teams is needed"
    );
    let gift = Gift { rights: Rights::ALL, teams: TeamLimit::All, until: Timestamp::from_millis(0) };
    let denied = check_gift(&caller(Rights::OPERATE), &gift).expect_err("it lacks secrets");
    assert_eq!(
        denied.to_string(),
        "nobody can give away a right that they lack: \"secrets\"; this caller's rights: operate"
    );
}

fn teams() -> impl Strategy<Value = TeamLimit> {
    prop::collection::btree_set(prop::sample::select(&["a", "b", "c"][..]), 0..3)
        .prop_map(|teams| TeamLimit::of(teams.into_iter().map(str::to_owned)))
}

proptest! {
    #[test]
    fn nobody_gives_more_than_they_have(
        has in prop::sample::select(&SETS[..]),
        own in teams(),
        left in prop::option::of(0_u64..100),
        rights in prop::sample::select(&SETS[..]),
        given in teams(),
        lasts in 0_u64..100,
    ) {
        let start = Timestamp::from_millis(1_764_000_000_000);
        let at = |seconds: u64| start.plus(Duration::from_secs(seconds));
        let caller = Caller { teams: own.clone(), until: left.map(at), ..caller(has) };
        let gift = Gift { rights, teams: given.clone(), until: at(lasts) };
        let receiver = Caller { teams: given, until: Some(gift.until), ..super::Caller::operator("r", "s", rights) };
        // The receiver may do nothing that the giver may not do.
        let more = Operation::ALL.iter().any(|operation| {
            let may = |caller: &Caller, team: &str| match operation.subject() {
                Subject::Team | Subject::Objects => check_team(caller, *operation, team).is_ok(),
                Subject::Installation => check(caller, *operation).is_ok(),
            };
            ["a", "b", "c", "d"].iter().any(|team| may(&receiver, team) && !may(&caller, team))
        });
        let longer = left.is_some_and(|left| lasts > left);
        prop_assert_eq!(check_gift(&caller, &gift).is_err(), more || longer, "{:?} {:?}", caller, gift);
    }
}
