//! The accounts on their own: exact, all or nothing, bounded, and by the clock that is passed in.

use std::sync::atomic::AtomicU64;

use caracal_policies::BudgetPer;

use super::*;

fn budget(name: &str, measure: Measure, limit: u64, span: Span) -> Arc<Budget> {
    Arc::new(Budget {
        name: name.into(),
        per: BudgetPer::Session,
        application: None,
        resource: None,
        measure,
        limit,
        span,
    })
}

fn item(budget: &Arc<Budget>, subject: &str) -> Item {
    Item { budget: Arc::clone(budget), subject: subject.into(), ends_at: None }
}

fn zone() -> Arc<str> {
    "z".into()
}

fn refused(outcome: Result<Vec<Charge>, NotCharged>) -> Limited {
    match outcome {
        Err(NotCharged::Limited(limited)) => *limited,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_many_calls_at_once_exactly_as_many_pass_as_there_are() {
    let (budgets, passed) = (Budgets::default(), AtomicU64::new(0));
    let items = [item(&budget("b", Measure::Calls, 1_000, Span::Life), "session:1")];
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..40 {
                    if budgets.charge(&zone(), &items, 0).is_ok() {
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 1_000);
}

#[test]
fn children_never_use_more_together_than_their_parent_has_and_a_refusal_takes_nothing() {
    let budgets = Budgets::default();
    let own = budget("b", Measure::Calls, 5, Span::Life);
    let call = |child: &str| [item(&own, child), item(&own, "session:parent")];
    let mut passed = 0;
    for round in 0..12 {
        let child = if round % 2 == 0 { "session:left" } else { "session:right" };
        passed += u32::from(budgets.charge(&zone(), &call(child), 0).is_ok());
    }
    assert_eq!(passed, 5);
    let used: HashMap<String, u64> =
        budgets.standing(0).into_iter().map(|row| (row.subject.to_string(), row.used)).collect();
    assert_eq!(used["session:parent"], used["session:left"] + used["session:right"]);
    assert_eq!(refused(budgets.charge(&zone(), &call("session:left"), 0)).reset_s, None);
}

#[test]
fn a_window_is_over_at_its_end_and_not_before() {
    let budgets = Budgets::default();
    let items = [item(&budget("b", Measure::Calls, 1, Span::Window { seconds: 60 }), "session:1")];
    budgets.charge(&zone(), &items, 90_000).unwrap();
    let limited = refused(budgets.charge(&zone(), &items, 119_001));
    assert_eq!((limited.remaining, limited.reset_s), (0, Some(1)));
    budgets.charge(&zone(), &items, 120_000).unwrap();
    assert_eq!(budgets.len(), 1);
    drop(budgets.sweep(180_000, |_, _| true));
    assert!(budgets.is_empty());
}

#[test]
fn a_rate_lets_its_burst_through_and_then_one_call_after_the_other() {
    let budgets = Budgets::default();
    let items = [item(&budget("r", Measure::Calls, 10, Span::Rate { seconds: 1, burst: 3 }), "session:1")];
    for _ in 0..3 {
        budgets.charge(&zone(), &items, 1_000).unwrap();
    }
    assert_eq!(refused(budgets.charge(&zone(), &items, 1_099)).reset_s, Some(1));
    budgets.charge(&zone(), &items, 1_100).unwrap();
    refused(budgets.charge(&zone(), &items, 1_100));
    let later = (0..100).filter(|_| budgets.charge(&zone(), &items, 60_000).is_ok()).count();
    assert_eq!(later, 3, "silence saves up no more than the burst");
}

#[test]
fn what_was_set_aside_is_settled_by_what_it_cost() {
    let budgets = Budgets::default();
    let bytes = budget("b", Measure::Bytes { max_per_call: 60 }, 100, Span::Window { seconds: 60 });
    let items = [item(&bytes, "session:1")];
    let [charge] = budgets.charge(&zone(), &items, 0).unwrap().try_into().unwrap();
    assert_eq!(refused(budgets.charge(&zone(), &items, 0)).remaining, 40);
    budgets.settle(&zone(), &charge, 10);
    let [second] = budgets.charge(&zone(), &items, 0).unwrap().try_into().unwrap();
    budgets.settle(&zone(), &second, 300);
    assert_eq!(refused(budgets.charge(&zone(), &items, 0)).remaining, 0, "one response may overshoot");
    budgets.charge(&zone(), &items, 60_000).unwrap();
    budgets.settle(&zone(), &second, 0);
    assert_eq!(budgets.standing(60_000)[0].used, 60, "a window that is over is settled no more");
}

#[test]
fn with_no_room_left_a_new_account_is_refused_until_an_old_one_is_over() {
    let budgets = Budgets::with_room(2);
    let own = budget("b", Measure::Calls, 9, Span::Window { seconds: 10 });
    budgets.charge(&zone(), &[item(&own, "session:1")], 0).unwrap();
    budgets.charge(&zone(), &[item(&own, "session:2")], 0).unwrap();
    let third = budgets.charge(&zone(), &[item(&own, "session:3")], 0);
    assert_eq!(third.unwrap_err(), NotCharged::Full);
    budgets.charge(&zone(), &[item(&own, "session:1")], 0).unwrap();
    budgets.charge(&zone(), &[item(&own, "session:3")], 10_000).unwrap();
    assert_eq!(budgets.len(), 1);
}

#[test]
fn what_ended_is_forgotten_and_what_is_stored_comes_back() {
    let budgets = Budgets::default();
    let own = budget("b", Measure::Calls, 3, Span::Life);
    budgets.charge(&zone(), &[item(&own, "session:1")], 0).unwrap();
    budgets.charge(&zone(), &[item(&own, "session:2")], 0).unwrap();
    let rate = budget("r", Measure::Calls, 3, Span::Rate { seconds: 9, burst: 3 });
    budgets.charge(&zone(), &[item(&rate, "session:1")], 0).unwrap();
    let stored = budgets.changed(0);
    assert_eq!(stored.len(), 2, "rates are not stored");
    assert!(budgets.changed(0).is_empty(), "each change once");
    budgets.owe(&stored[..1]);
    assert_eq!(budgets.changed(0).len(), 1, "and again what could not be stored");
    let ended = budgets.sweep(0, |_, subject| subject != "session:1");
    assert_eq!(ended.len(), 2, "the store is to forget them too");
    assert_eq!(budgets.len(), 1);
    let next = Budgets::default();
    next.restore(stored, 0);
    next.charge(&zone(), &[item(&own, "session:1")], 0).unwrap();
    next.charge(&zone(), &[item(&own, "session:1")], 0).unwrap();
    refused(next.charge(&zone(), &[item(&own, "session:1")], 0));
}
