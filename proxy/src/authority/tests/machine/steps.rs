//! What may happen to the machine, in any order.

use proptest::prelude::*;

use super::model::POLICIES;
use crate::state::Extent;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Start { application: usize, parent: Option<usize>, label: usize },
    Delegate { source: usize, target: usize, scopes: u8, resources: u8, hops: u32, ttl: u32 },
    Mint { edge: usize, scopes: u8, resource: usize },
    Use { mandate: usize, scope: usize, resource: usize },
    Change { session: usize, change: Change },
    Revoke { what: What, number: usize },
    Operate(Act),
    Restart,
    Pass { seconds: u16 },
}

/// What may happen to a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Suspend,
    Resume,
    End,
}

/// What may be revoked by its number.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Delegation,
    Record,
    Subject,
}

/// What an operator may do to applications and the zone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Stop { application: usize, extent: Extent },
    Restore { application: usize },
    Freeze,
    Unfreeze,
    Reload { policy: usize },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let any = || 0..8_usize;
    let mask = || 1..4_u8;
    prop_oneof![
        6 => (0..2_usize, proptest::option::of(any()), 0..3_usize)
            .prop_map(|(application, parent, label)| Step::Start { application, parent, label }),
        10 => (any(), any(), mask(), mask(), 1..4_u32, 30..1_500_u32).prop_map(
            |(source, target, scopes, resources, hops, ttl)| Step::Delegate { source, target, scopes, resources, hops, ttl }
        ),
        14 => (any(), mask(), 0..2_usize).prop_map(|(edge, scopes, resource)| Step::Mint { edge, scopes, resource }),
        14 => (any(), 0..2_usize, 0..2_usize)
            .prop_map(|(mandate, scope, resource)| Step::Use { mandate, scope, resource }),
        5 => (any(), prop_oneof![2 => Just(Change::Suspend), 2 => Just(Change::Resume), 1 => Just(Change::End)])
            .prop_map(|(session, change)| Step::Change { session, change }),
        3 => (any(), prop_oneof![Just(What::Delegation), Just(What::Record), Just(What::Subject)])
            .prop_map(|(number, what)| Step::Revoke { what, number }),
        8 => act().prop_map(Step::Operate),
        1 => Just(Step::Restart),
        3 => (1..200_u16).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let extent = prop_oneof![Just(Extent::Cut), Just(Extent::Block)];
    prop_oneof![
        1 => (0..2_usize, extent).prop_map(|(application, extent)| Act::Stop { application, extent }),
        1 => (0..2_usize).prop_map(|application| Act::Restore { application }),
        1 => Just(Act::Freeze),
        2 => Just(Act::Unfreeze),
        3 => (0..POLICIES.len()).prop_map(|policy| Act::Reload { policy }),
    ]
}
