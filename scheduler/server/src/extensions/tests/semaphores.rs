//! Semaphores and locks.

use super::*;

fn semaphore(max_leases: i64) -> Bench {
    let mut t = Bench::new();
    t.ask(
        0,
        "semaphore_register",
        [
            ("name", s("x")),
            ("max_leases", n(max_leases)),
            ("lease_timeout", n(30)),
        ],
    );
    t.expect([(0, NIL)]);
    t
}

fn acquire(t: &mut Bench, waiter: u32, lease: &str, timeout: Value) {
    t.ask(
        waiter,
        "semaphore_acquire",
        [
            ("name", s("x")),
            ("lease_id", s(lease)),
            ("timeout", timeout),
        ],
    );
}

fn release(t: &mut Bench, lease: &str) {
    t.ask(
        99,
        "semaphore_release",
        [("name", s("x")), ("lease_id", s(lease))],
    );
    let replies = t.replies();
    t.out.replies = replies
        .into_iter()
        .filter(|(waiter, _)| *waiter != 99)
        .map(|(waiter, value)| (waiter, Ok(value)))
        .collect();
}

#[test]
fn takers_get_free_leases_in_the_order_in_which_they_came() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 2, "b", NIL);
    acquire(&mut t, 3, "c", NIL);
    t.expect([(1, YES)]);
    release(&mut t, "a");
    t.expect([(2, YES)]);
    release(&mut t, "b");
    t.expect([(3, YES)]);
}

#[test]
fn a_taker_gives_up_when_its_time_is_over() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 2, "b", s("200ms"));
    acquire(&mut t, 3, "c", n(0));
    t.expect([(1, YES), (3, NO)]);
    t.pass(0.1);
    t.expect_silence();
    t.pass(0.1);
    t.expect([(2, NO)]);
    release(&mut t, "a");
    t.expect_silence();
}

#[test]
fn a_lease_that_is_not_refreshed_goes_to_the_next() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 2, "b", NIL);
    t.expect([(1, YES)]);
    t.pass(25.0);
    t.ask(
        3,
        "semaphore_refresh_leases",
        [("name", s("x")), ("lease_ids", Value::array(["a"]))],
    );
    t.expect([(3, NIL)]);
    t.pass(25.0);
    t.expect_silence();
    t.pass(10.0);
    t.expect([(2, YES)]);
}

#[test]
fn no_deadline_stands_when_no_lease_is_out() {
    let mut t = semaphore(1);
    assert_eq!(t.extensions.next_deadline(), None);
    acquire(&mut t, 1, "a", NIL);
    assert!(t.extensions.next_deadline().is_some());
    release(&mut t, "a");
    t.pass(20.0);
    assert_eq!(t.extensions.next_deadline(), None);
}

#[test]
fn asking_again_for_a_lease_gives_it_again() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 1, "a", NIL);
    t.expect([(1, YES), (1, YES)]);
    t.ask(2, "semaphore_value", [("name", s("x"))]);
    t.expect([(2, n(1))]);
}

#[test]
fn a_taker_that_hung_up_leaves_the_line() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 2, "b", NIL);
    acquire(&mut t, 3, "c", NIL);
    t.hang_up(2);
    t.replies();
    release(&mut t, "a");
    t.expect([(3, YES)]);
}

#[test]
fn another_number_of_leases_is_refused() {
    let mut t = semaphore(1);
    t.ask(
        1,
        "semaphore_register",
        [
            ("name", s("x")),
            ("max_leases", n(2)),
            ("lease_timeout", n(30)),
        ],
    );
    t.expect([(1, s("ValueError: Inconsistent max leases: 2, expected: 1"))]);
}

#[test]
fn unknown_and_closed_semaphores_raise() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 2, "b", NIL);
    t.ask(3, "semaphore_close", [("name", s("x"))]);
    acquire(&mut t, 4, "c", NIL);
    t.expect([
        (1, YES),
        (2, s("RuntimeError: Semaphore or Lock `x` was closed.")),
        (3, NIL),
        (4, s("RuntimeError: Semaphore or Lock `x` not known.")),
    ]);
}

#[test]
fn metrics_tell_what_a_semaphore_did() {
    let mut t = semaphore(1);
    acquire(&mut t, 1, "a", NIL);
    acquire(&mut t, 2, "b", NIL);
    t.pass(4.0);
    release(&mut t, "a");
    let view = &t.extensions.semaphores.view()[0];
    assert_eq!((view.max_leases, view.active, view.pending), (1, 1, 0));
    assert_eq!((view.acquired_total, view.released_total), (2, 1));
    assert_eq!(view.average_wait, 2.0);
}
