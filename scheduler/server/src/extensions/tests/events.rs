//! Events.

use super::*;

#[test]
fn everybody_who_waits_goes_on_when_the_event_is_set() {
    let mut t = Bench::new();
    t.ask(1, "event_wait", [("name", s("e")), ("timeout", NIL)]);
    t.ask(2, "event_wait", [("name", s("e")), ("timeout", n(1))]);
    t.ask(3, "event_wait", [("name", s("other")), ("timeout", n(1))]);
    t.expect_silence();
    t.ask(4, "event_set", [("name", s("e"))]);
    t.expect([(1, YES), (2, YES), (4, NIL)]);
    t.ask(5, "event_wait", [("name", s("e")), ("timeout", n(0))]);
    t.ask(6, "event_is_set", [("name", s("e"))]);
    t.expect([(5, YES), (6, YES)]);
    t.pass(1.0);
    t.expect([(3, NO)]);
}

#[test]
fn a_cleared_event_is_waited_for_again() {
    let mut t = Bench::new();
    t.ask(1, "event_set", [("name", s("e"))]);
    t.ask(2, "event_clear", [("name", s("e"))]);
    t.ask(3, "event_is_set", [("name", s("e"))]);
    t.ask(4, "event_wait", [("name", s("e")), ("timeout", n(0))]);
    t.expect([(1, NIL), (2, NIL), (3, NO), (4, NO)]);
}
