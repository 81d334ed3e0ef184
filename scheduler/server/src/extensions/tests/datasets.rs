//! Published data sets.

use super::*;

fn put(t: &mut Bench, waiter: u32, name: &str, keys: &[&str], replace: bool, uid: &str) {
    t.ask(
        waiter,
        "publish_put",
        [
            ("names", Value::array([name])),
            (
                "keys",
                Value::Array(vec![Value::array(keys.iter().copied())]),
            ),
            ("data", Value::array([n(1)])),
            ("override", replace.into()),
            ("client", s("c")),
            ("uid", s(uid)),
        ],
    );
}

fn flush(t: &mut Bench, uid: &str) {
    t.say("c", "publish_flush_batched_send", [("uid", s(uid))]);
}

#[test]
fn a_call_waits_for_its_marker_whichever_comes_first() {
    let mut t = Bench::new();
    put(&mut t, 1, "d", &["k"], false, "u1");
    t.expect_silence();
    flush(&mut t, "u1");
    t.expect([(1, NIL)]);
    assert_eq!(t.effects(), [desires("published-d", &["k"])]);
    flush(&mut t, "u2");
    put(&mut t, 2, "e", &[], false, "u2");
    t.expect([(2, NIL)]);
    t.ask(3, "publish_list", []);
    t.expect([(3, Value::array(["d", "e"]))]);
}

#[test]
fn a_name_is_taken_until_it_is_replaced_or_deleted() {
    let mut t = Bench::new();
    for uid in ["1", "2", "3", "4"] {
        flush(&mut t, uid);
    }
    put(&mut t, 1, "d", &["a", "b"], false, "1");
    put(&mut t, 2, "d", &["c"], false, "2");
    t.expect([(1, NIL), (2, s("KeyError: Dataset d already exists"))]);
    t.effects();
    put(&mut t, 3, "d", &["b", "c"], true, "3");
    assert_eq!(
        t.effects(),
        [
            desires("published-d", &["b", "c"]),
            releases("published-d", &["a"])
        ]
    );
    t.ask(
        4,
        "publish_delete",
        [
            ("names", Value::array(["d", "none"])),
            ("client", s("c")),
            ("uid", s("4")),
        ],
    );
    assert_eq!(t.effects(), [releases("published-d", &["b", "c"])]);
    t.ask(5, "publish_get", [("names", Value::array(["d"]))]);
    t.expect([(3, NIL), (4, NIL), (5, Value::Array(vec![NIL]))]);
}

#[test]
fn a_call_of_a_client_that_is_gone_ends() {
    let mut t = Bench::new();
    t.scheduler.connected.push("c".to_owned());
    put(&mut t, 1, "d", &[], false, "u");
    t.pass(100.0);
    t.expect_silence();
    t.scheduler.connected.clear();
    t.pass(30.0);
    t.expect([(1, s("TimeoutError: "))]);
    put(&mut t, 2, "d", &[], false, "u");
    let now = t.now();
    t.extensions.client_left(now, "c", &mut t.out);
    t.expect([(2, s("TimeoutError: "))]);
    assert_eq!(t.extensions.next_deadline(), None);
}

#[test]
fn older_clients_publish_one_by_one() {
    let mut t = Bench::new();
    t.ask(1, "publish_wait_flush", [("uid", s("u"))]);
    flush(&mut t, "u");
    t.ask(
        2,
        "publish_put",
        [
            ("name", s("d")),
            ("keys", Value::array(["k"])),
            ("data", n(1)),
            ("client", s("c")),
        ],
    );
    t.ask(3, "publish_get", [("name", s("d")), ("client", s("c"))]);
    let dataset = Value::map([("data", n(1)), ("keys", Value::array(["k"]))]);
    t.expect([(1, NIL), (2, NIL), (3, dataset)]);
}
