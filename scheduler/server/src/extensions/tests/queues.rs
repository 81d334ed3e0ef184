//! Queues.

use super::*;

fn queue(maxsize: i64) -> Bench {
    let mut t = Bench::new();
    t.ask(
        0,
        "queue_create",
        [("name", s("q")), ("maxsize", n(maxsize))],
    );
    t.expect([(0, NIL)]);
    t
}

fn put(t: &mut Bench, waiter: u32, value: i64, timeout: Value) {
    t.ask(
        waiter,
        "queue_put",
        [("name", s("q")), ("data", n(value)), ("timeout", timeout)],
    );
}

fn put_future(t: &mut Bench, waiter: u32, key: &str, timeout: Value) {
    t.ask(
        waiter,
        "queue_put",
        [("name", s("q")), ("key", s(key)), ("timeout", timeout)],
    );
}

fn get(t: &mut Bench, waiter: u32, timeout: Value, batch: Value) {
    t.ask(
        waiter,
        "queue_get",
        [("name", s("q")), ("timeout", timeout), ("batch", batch)],
    );
}

fn plain(value: i64) -> Value {
    Value::map([("type", s("msgpack")), ("value", n(value))])
}

fn future(key: &str, state: &str) -> Value {
    Value::map([
        ("type", s("Future")),
        ("value", s(key)),
        ("state", s(state)),
    ])
}

#[test]
fn items_come_out_in_order_and_getters_are_served_in_order() {
    let mut t = queue(0);
    get(&mut t, 1, NIL, NO);
    get(&mut t, 2, NIL, NO);
    put(&mut t, 3, 10, NIL);
    put(&mut t, 4, 20, NIL);
    put(&mut t, 5, 30, NIL);
    t.expect([(3, NIL), (1, plain(10)), (4, NIL), (2, plain(20)), (5, NIL)]);
    t.ask(6, "queue_qsize", [("name", s("q"))]);
    t.expect([(6, n(1))]);
}

#[test]
fn a_full_queue_lets_putters_wait() {
    let mut t = queue(1);
    put(&mut t, 1, 10, NIL);
    put(&mut t, 2, 20, n(5));
    put(&mut t, 3, 30, n(1));
    put(&mut t, 4, 40, n(0));
    t.expect([(1, NIL), (4, s("TimeoutError: "))]);
    t.pass(1.0);
    t.expect([(3, s("TimeoutError: "))]);
    get(&mut t, 5, NIL, NO);
    t.expect([(5, plain(10)), (2, NIL)]);
    get(&mut t, 6, n(1), NO);
    t.expect([(6, plain(20))]);
}

#[test]
fn a_getter_gives_up_when_its_time_is_over() {
    let mut t = queue(0);
    get(&mut t, 1, s("300ms"), NO);
    get(&mut t, 2, n(0), NO);
    t.expect([(2, s("TimeoutError: "))]);
    t.pass(0.3);
    t.expect([(1, s("TimeoutError: "))]);
    put(&mut t, 3, 10, NIL);
    t.expect([(3, NIL)]);
}

#[test]
fn batches_take_all_or_wait_for_their_number() {
    let mut t = queue(0);
    get(&mut t, 1, NIL, YES);
    t.expect([(1, Value::Array(vec![]))]);
    put(&mut t, 2, 10, NIL);
    put(&mut t, 3, 20, NIL);
    get(&mut t, 4, NIL, YES);
    t.expect([
        (2, NIL),
        (3, NIL),
        (4, Value::Array(vec![plain(10), plain(20)])),
    ]);
    get(&mut t, 5, NIL, n(2));
    put(&mut t, 6, 30, NIL);
    t.expect([(6, NIL)]);
    put(&mut t, 7, 40, NIL);
    t.expect([(7, NIL), (5, Value::Array(vec![plain(30), plain(40)]))]);
    get(&mut t, 8, n(1), n(2));
    let text = "NotImplementedError: Dask queues don't support simultaneous use of integer batch sizes and timeouts";
    t.expect([(8, s(text))]);
}

#[test]
fn what_a_getter_had_taken_when_it_hung_up_goes_to_the_next() {
    let mut t = queue(0);
    get(&mut t, 1, NIL, n(3));
    put(&mut t, 2, 10, NIL);
    put(&mut t, 3, 20, NIL);
    t.expect([(2, NIL), (3, NIL)]);
    t.hang_up(1);
    get(&mut t, 4, NIL, NO);
    get(&mut t, 5, NIL, NO);
    t.expect([(4, plain(10)), (5, plain(20))]);
}

#[test]
fn a_future_is_kept_until_the_client_has_taken_it_over() {
    let mut t = queue(0);
    t.task("k", "processing");
    put_future(&mut t, 1, "k", NIL);
    assert_eq!(t.effects(), [desires("queue-q", &["k"])]);
    get(&mut t, 2, NIL, NO);
    t.expect([(1, NIL), (2, future("k", "processing"))]);
    assert_eq!(t.effects(), []);
    t.say(
        "Client-1",
        "queue-future-release",
        [("name", s("q")), ("key", s("k"))],
    );
    assert_eq!(
        t.effects(),
        [desires("Client-1", &["k"]), releases("queue-q", &["k"])]
    );
}

#[test]
fn a_future_of_an_unknown_task_is_waited_for() {
    let mut t = queue(0);
    put_future(&mut t, 1, "late", n(1));
    put_future(&mut t, 2, "never", n(1));
    t.expect_silence();
    t.task("late", "waiting");
    t.expect([(1, NIL)]);
    t.pass(1.0);
    t.expect([(2, s("TimeoutError: Task never unknown to scheduler."))]);
}

#[test]
fn a_failed_future_carries_its_exception() {
    let mut t = queue(0);
    t.task("k", "erred");
    t.scheduler.tasks.get_mut(&Key::from("k")).unwrap().error = Some(Arc::new(TaskError {
        exception: s("boom"),
        traceback: NIL,
        exception_text: String::new(),
        traceback_text: String::new(),
    }));
    put_future(&mut t, 1, "k", NIL);
    get(&mut t, 2, NIL, NO);
    let reply = t.replies().pop().unwrap().1;
    assert_eq!(reply.field("exception"), Some(&s("boom")));
    assert_eq!(reply.field("state"), Some(&s("erred")));
}

#[test]
fn the_last_user_takes_the_queue_along() {
    let mut t = queue(0);
    t.ask(1, "queue_create", [("name", s("q")), ("maxsize", n(0))]);
    t.task("k", "memory");
    put_future(&mut t, 2, "k", NIL);
    t.effects();
    t.say("c", "queue_release", [("name", s("q"))]);
    assert_eq!(t.effects(), []);
    t.say("c", "queue_release", [("name", s("q"))]);
    assert_eq!(t.effects(), [releases("queue-q", &["k"])]);
    t.replies();
    get(&mut t, 3, NIL, NO);
    put(&mut t, 4, 1, NIL);
    t.ask(5, "queue_qsize", [("name", s("q"))]);
    t.expect([
        (3, s("KeyError: q")),
        (4, s("KeyError: q")),
        (5, s("KeyError: q")),
    ]);
}
