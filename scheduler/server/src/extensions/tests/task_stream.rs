//! The record of finished tasks.

use super::*;

fn bench() -> Bench {
    let mut t = Bench::with(&Limits {
        task_stream_length: 4,
        ..Limits::default()
    });
    t.ask(0, "get_task_stream_index", []);
    t.expect([(0, n(0))]);
    for key in 0..6_i64 {
        let step = Value::map([
            ("start", Value::from(EPOCH)),
            ("stop", Value::from(EPOCH + key as f64)),
        ]);
        let record = Value::map([("key", n(key)), ("startstops", Value::Array(vec![step]))]);
        t.extensions.task_stream.record(&record);
    }
    t
}

fn collect<const N: usize>(t: &mut Bench, fields: [(&str, Value); N]) -> Vec<i64> {
    t.ask(0, "get_task_stream", fields);
    let reply = t.replies().pop().unwrap().1;
    let keys = reply.as_array().unwrap().iter();
    keys.map(|record| record.field("key").unwrap().as_f64().unwrap() as i64)
        .collect()
}

#[test]
fn the_latest_tasks_are_kept_and_selected() {
    let mut t = bench();
    assert_eq!(collect(&mut t, []), [2, 3, 4, 5]);
    assert_eq!(collect(&mut t, [("count", n(2))]), [4, 5]);
    let four = Value::from(EPOCH + 4.0);
    assert_eq!(collect(&mut t, [("start", four.clone())]), [4, 5]);
    assert_eq!(collect(&mut t, [("stop", four.clone())]), [2, 3]);
    assert_eq!(collect(&mut t, [("start", four), ("count", n(1))]), [4]);
    assert_eq!(collect(&mut t, [("start_index", n(5))]), [5]);
    assert_eq!(collect(&mut t, [("start_index", n(0))]), [2, 3, 4, 5]);
    assert_eq!(collect(&mut t, [("start_index", n(9))]), [0; 0]);
    t.seconds = 5.0;
    assert_eq!(collect(&mut t, [("start", s("1s"))]), [4, 5]);
}

#[test]
fn nothing_is_recorded_before_somebody_asks() {
    let mut t = Bench::new();
    t.extensions
        .task_stream
        .record(&Value::map([("key", n(1))]));
    assert_eq!(collect(&mut t, []), [0; 0]);
    assert!(t.extensions.task_stream.is_recording());
}
