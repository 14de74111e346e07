//! Properties of a partition over random sequences of events. The world around it checks each action. These tests check
//! the end of a sequence.

use proptest::prelude::*;

use super::world::{OURS, Op, World};
use crate::intake::partition::{AcceptFrom, ResetWay};

fn op() -> impl Strategy<Value = Op> {
    let from = prop_oneof![Just(AcceptFrom::Earliest), Just(AcceptFrom::Committed), Just(AcceptFrom::End)];
    let way = prop_oneof![Just(ResetWay::Rewind), Just(ResetWay::Skip)];
    let who = prop_oneof![Just(OURS), Just("st_other"), Just("")];
    prop_oneof![
        6 => (0..4_i64, 0..3_i64).prop_map(|(records, gap)| Op::Append(records, gap)),
        3 => (1..6_i64).prop_map(Op::Delete),
        1 => (0..12_i64).prop_map(Op::Recreate),
        16 => Just(Op::Poll),
        2 => Just(Op::OutOfRange),
        16 => Just(Op::Answer),
        3 => Just(Op::Fail),
        8 => Just(Op::Tick),
        2 => Just(Op::Fence),
        6 => (1..5_usize).prop_map(Op::Settle),
        4 => Just(Op::Position),
        2 => Just(Op::ForgetPosition),
        1 => Just(Op::Unreadable),
        2 => Just(Op::LeaveSandbox),
        1 => (who, 0..20_i64).prop_map(|(who, offset)| Op::Commit(who, offset)),
        1 => Just(Op::CommitDue),
        1 => (0..8_usize).prop_map(Op::Restore),
        2 => from.prop_map(Op::Accept),
        2 => (way, 0..30_i64).prop_map(|(way, to)| Op::Reset(way, to)),
        2 => (any::<bool>(), 0..2_000_u64).prop_map(|(hold, millis)| Op::Flow(hold, millis)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_partition_keeps_its_promises_and_reads_to_the_end(ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.come_to_rest();
    }

    #[test]
    fn a_revoked_partition_asks_for_nothing(
        before in proptest::collection::vec(op(), 0..60),
        after in proptest::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new();
        for op in before.into_iter().chain([Op::Revoke]).chain(after) {
            world.run(op);
        }
        prop_assert!(!world.holds());
    }
}
