//! The event log.

use super::*;

fn log(t: &mut Bench, topic: Value, message: i64) {
    t.ask(0, "log_event", [("topic", topic), ("msg", n(message))]);
    t.expect([(0, NIL)]);
}

fn events(t: &mut Bench, topic: &str) -> Value {
    t.ask(0, "events", [("topic", s(topic))]);
    t.replies().pop().unwrap().1
}

fn event(at: f64, message: i64) -> Value {
    Value::Array(vec![Value::from(at), n(message)])
}

#[test]
fn subscribers_hear_of_events_until_they_leave() {
    let mut t = Bench::new();
    t.say("c", "subscribe-topic", [("topic", s("a"))]);
    t.say("d", "subscribe-topic", [("topic", s("a"))]);
    t.say("d", "unsubscribe-topic", [("topic", s("a"))]);
    log(&mut t, Value::array(["a", "b"]), 1);
    assert_eq!(
        t.effects(),
        [Effect::Event {
            client: "c".to_owned(),
            topic: "a".to_owned(),
            at: EPOCH,
            message: n(1),
        }]
    );
    let now = t.now();
    t.extensions.client_left(now, "c", &mut t.out);
    log(&mut t, s("a"), 2);
    assert_eq!(t.effects(), []);
    assert_eq!(
        events(&mut t, "a"),
        Value::Array(vec![event(EPOCH, 1), event(EPOCH, 2)])
    );
    t.ask(1, "events", []);
    let all = t.replies().pop().unwrap().1;
    assert_eq!(all.as_map().unwrap().len(), 2);
}

#[test]
fn the_log_of_a_topic_is_bounded() {
    let mut t = Bench::with(&Limits {
        events_per_topic: 2,
        ..Limits::default()
    });
    for message in 0..5 {
        log(&mut t, s("a"), message);
    }
    assert_eq!(
        events(&mut t, "a"),
        Value::Array(vec![event(EPOCH, 3), event(EPOCH, 4)])
    );
    for topic in 0..20_000 {
        log(&mut t, s(&topic.to_string()), 0);
    }
    assert!(t.extensions.topics.counts().count() <= 10_000);
}

#[test]
fn events_of_a_worker_that_left_go_after_the_delay_unless_it_came_back() {
    let mut t = Bench::new();
    for worker in ["w1", "w2"] {
        log(&mut t, s(worker), 1);
        let now = t.now();
        t.extensions.worker_left(now, worker);
    }
    t.scheduler.connected.push("w2".to_owned());
    t.pass(3600.0);
    assert_eq!(events(&mut t, "w1"), Value::Array(vec![]));
    assert_eq!(events(&mut t, "w2"), Value::Array(vec![event(EPOCH, 1)]));
}
