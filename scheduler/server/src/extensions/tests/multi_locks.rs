//! Sets of locks.

use super::*;

fn acquire(t: &mut Bench, id: u32, locks: &[&str], num_locks: i64, timeout: Value) {
    t.ask(
        id,
        "multi_lock_acquire",
        [
            ("locks", Value::array(locks.iter().copied())),
            ("id", s(&id.to_string())),
            ("timeout", timeout),
            ("num_locks", n(num_locks)),
        ],
    );
}

fn release(t: &mut Bench, id: u32) {
    t.ask(100 + id, "multi_lock_release", [("id", s(&id.to_string()))]);
}

#[test]
fn a_taker_waits_for_all_its_locks() {
    let mut t = Bench::new();
    acquire(&mut t, 1, &["x"], 1, NIL);
    acquire(&mut t, 2, &["y"], 1, NIL);
    acquire(&mut t, 3, &["x", "y"], 2, NIL);
    t.expect([(1, YES), (2, YES)]);
    release(&mut t, 1);
    t.expect([(101, NIL)]);
    release(&mut t, 2);
    t.expect([(3, YES), (102, NIL)]);
}

#[test]
fn some_of_the_locks_may_suffice() {
    let mut t = Bench::new();
    acquire(&mut t, 1, &["x"], 1, NIL);
    acquire(&mut t, 2, &["x", "y", "z"], 2, NIL);
    t.expect([(1, YES), (2, YES)]);
    acquire(&mut t, 3, &["y"], 1, NIL);
    t.expect_silence();
    release(&mut t, 2);
    t.expect([(3, YES), (102, NIL)]);
}

#[test]
fn a_taker_that_gives_up_lets_the_others_pass() {
    let mut t = Bench::new();
    acquire(&mut t, 1, &["x"], 1, NIL);
    acquire(&mut t, 2, &["y", "x"], 2, n(1));
    acquire(&mut t, 3, &["y"], 1, NIL);
    acquire(&mut t, 4, &["x", "w"], 2, n(0));
    acquire(&mut t, 5, &["w"], 1, NIL);
    t.expect([(1, YES), (4, NO), (5, YES)]);
    t.pass(1.0);
    t.expect([(3, YES), (2, NO)]);
}

#[test]
fn a_taker_that_hung_up_lets_the_others_pass() {
    let mut t = Bench::new();
    acquire(&mut t, 1, &["x"], 1, NIL);
    acquire(&mut t, 2, &["y", "x"], 2, NIL);
    acquire(&mut t, 3, &["y"], 1, NIL);
    t.hang_up(2);
    t.expect([(1, YES), (3, YES)]);
}

#[test]
fn misuse_raises() {
    let mut t = Bench::new();
    acquire(&mut t, 1, &["x"], 1, NIL);
    acquire(&mut t, 1, &["x"], 1, NIL);
    acquire(&mut t, 2, &["x"], 2, NIL);
    release(&mut t, 7);
    t.expect([
        (1, YES),
        (
            1,
            s("AssertionError: multi-lock 1 is held or asked for already"),
        ),
        (2, s("AssertionError: cannot take 2 of 1 locks")),
        (107, s("KeyError: 7")),
    ]);
}
