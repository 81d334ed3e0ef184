//! Variables.

use super::*;

fn set(t: &mut Bench, waiter: u32, key: &str) {
    t.ask(
        waiter,
        "variable_set",
        [("name", s("v")), ("key", s(key)), ("timeout", s("1s"))],
    );
}

fn get(t: &mut Bench, waiter: u32, client: &str) {
    t.ask(
        waiter,
        "variable_get",
        [("name", s("v")), ("client", s(client)), ("timeout", n(2))],
    );
}

fn token(t: &mut Bench) -> Value {
    let (_, reply) = t.replies().pop().unwrap();
    reply.field("token").unwrap().clone()
}

fn confirm(t: &mut Bench, client: &str, key: &str, token: Value) {
    t.say(
        client,
        "variable-future-received-confirm",
        [("name", s("v")), ("key", s(key)), ("token", token)],
    );
}

#[test]
fn readers_wait_until_it_is_set() {
    let mut t = Bench::new();
    get(&mut t, 1, "c");
    t.pass(1.0);
    get(&mut t, 2, "c");
    t.pass(1.0);
    t.expect([(1, s("TimeoutError: "))]);
    t.ask(3, "variable_set", [("name", s("v")), ("data", n(5))]);
    let value = Value::map([("type", s("msgpack")), ("value", n(5))]);
    t.expect([(2, value), (3, NIL)]);
}

#[test]
fn a_replaced_future_is_released_at_once_if_nobody_is_taking_it_over() {
    let mut t = Bench::new();
    t.task("a", "memory");
    t.task("b", "memory");
    set(&mut t, 1, "a");
    set(&mut t, 2, "b");
    assert_eq!(
        t.effects(),
        [
            desires("variable-v", &["a"]),
            desires("variable-v", &["b"]),
            releases("variable-v", &["a"])
        ]
    );
}

#[test]
fn a_replaced_future_stays_until_its_reader_confirms() {
    let mut t = Bench::new();
    t.task("a", "memory");
    t.task("b", "memory");
    set(&mut t, 1, "a");
    get(&mut t, 2, "c");
    let token = token(&mut t);
    set(&mut t, 3, "b");
    t.effects();
    confirm(&mut t, "c", "a", token);
    assert_eq!(
        t.effects(),
        [desires("c", &["a"]), releases("variable-v", &["a"])]
    );
}

#[test]
fn a_reader_that_left_confirms_nothing_and_blocks_nothing() {
    let mut t = Bench::new();
    t.task("a", "memory");
    set(&mut t, 1, "a");
    get(&mut t, 2, "c");
    t.ask(3, "variable_set", [("name", s("v")), ("data", n(5))]);
    t.effects();
    let now = t.now();
    t.extensions.client_left(now, "c", &mut t.out);
    assert_eq!(t.effects(), [releases("variable-v", &["a"])]);
}

#[test]
fn a_future_that_was_set_again_is_not_released_by_an_old_confirmation() {
    let mut t = Bench::new();
    t.task("a", "memory");
    set(&mut t, 1, "a");
    get(&mut t, 2, "c");
    let token = token(&mut t);
    t.ask(3, "variable_set", [("name", s("v")), ("data", n(5))]);
    set(&mut t, 4, "a");
    t.effects();
    confirm(&mut t, "c", "a", token);
    assert_eq!(t.effects(), [desires("c", &["a"])]);
}

#[test]
fn deleting_ends_the_interest_of_the_variable() {
    let mut t = Bench::new();
    t.task("a", "memory");
    set(&mut t, 1, "a");
    t.effects();
    t.say("c", "variable_delete", [("name", s("v"))]);
    let gone = Effect::RemoveClient {
        client: "variable-v".to_owned(),
    };
    assert_eq!(t.effects(), [releases("variable-v", &["a"]), gone.clone()]);

    set(&mut t, 2, "a");
    get(&mut t, 3, "c");
    let token = token(&mut t);
    t.effects();
    t.say("c", "variable_delete", [("name", s("v"))]);
    assert_eq!(t.effects(), []);
    confirm(&mut t, "c", "a", token);
    assert_eq!(
        t.effects(),
        [desires("c", &["a"]), releases("variable-v", &["a"]), gone]
    );
}

#[test]
fn a_future_of_an_unknown_task_is_waited_for() {
    let mut t = Bench::new();
    set(&mut t, 1, "late");
    set(&mut t, 2, "never");
    t.task("late", "memory");
    t.expect([(1, NIL)]);
    t.pass(1.0);
    t.expect([(2, s("TimeoutError: Task never unknown to scheduler."))]);
}
