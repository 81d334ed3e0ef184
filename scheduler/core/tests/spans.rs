//! Spans: tasks that a user named together.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::WorkerId;
use oxidask_scheduler_core::event::{Annotations, Event, Heartbeat, SpanTag};
use oxidask_scheduler_core::testing::{TestCore, annotated, task};
use oxidask_scheduler_core::view::SpanView;

fn cluster() -> TestCore {
    TestCore::default().worker(0, 1).client(0)
}

/// A span `a/b/…` with the ids `id-a`, `id-b`, ….
fn tag(path: &[&str]) -> SpanTag {
    SpanTag {
        names: path.iter().map(|name| Arc::from(*name)).collect(),
        ids: path
            .iter()
            .map(|name| Arc::from(format!("id-{name}")))
            .collect(),
    }
}

fn in_span(path: &[&str]) -> Annotations {
    Annotations {
        span: Some(tag(path)),
        raw: Value::map([("span", Value::Nil), ("other", 1_u64.into())]),
        ..Annotations::default()
    }
}

fn span(t: &TestCore, name: &str) -> SpanView {
    let spans = t.core.spans();
    let found = spans
        .into_iter()
        .rev()
        .find(|s| &**s.tag.names.last().unwrap() == name);
    found.unwrap_or_else(|| panic!("no span {name}"))
}

fn span_of(t: &TestCore, key: &str) -> String {
    t.core
        .task(&Key::from(key))
        .unwrap()
        .span
        .unwrap()
        .to_string()
}

#[test]
fn a_task_belongs_to_the_span_that_the_user_named_and_its_worker_is_told() {
    let mut t = cluster();
    t.submit(
        0,
        vec![
            annotated(task("x", &[]), in_span(&["wf", "load"])),
            task("y", &["x"]),
        ],
        &["y"],
    );
    assert_eq!(span_of(&t, "x"), "id-load");
    assert_eq!(t.sent[&Key::from("x")].span_id.as_deref(), Some("id-load"));
    let paths: Vec<usize> = t.core.spans().iter().map(|s| s.tag.names.len()).collect();
    assert_eq!(paths, [1, 2, 1], "wf, wf/load and the default span");
    assert_eq!(&*span(&t, "default").tag.ids[0], span_of(&t, "y"));
}

#[test]
fn tasks_of_one_graph_that_name_no_span_share_one() {
    let mut t = cluster();
    t.submit(0, vec![task("x-1", &[]), task("y-1", &["x-1"])], &["y-1"]);
    assert_eq!(span_of(&t, "x-1"), span_of(&t, "y-1"));
}

#[test]
fn the_default_span_ends_when_all_its_tasks_are_done() {
    let mut t = cluster();
    t.submit(
        0,
        vec![annotated(task("long", &[]), in_span(&["foo"]))],
        &["long"],
    );
    t.submit(0, vec![task("y", &[])], &["y"]);
    t.submit(0, vec![task("z", &[])], &["z"]);
    assert_eq!(
        span_of(&t, "y"),
        span_of(&t, "z"),
        "y is not done when z comes"
    );
    t.finish("y");
    t.finish("z");
    t.submit(0, vec![task("w", &[])], &["w"]);
    assert_ne!(
        span_of(&t, "w"),
        span_of(&t, "y"),
        "only a task of another span is under way"
    );
}

#[test]
fn tasks_of_one_group_share_the_span_of_the_first_and_their_annotations_say_so() {
    let mut t = cluster();
    t.submit(
        0,
        vec![annotated(task("x-1", &[]), in_span(&["p1"]))],
        &["x-1"],
    );
    t.submit(
        0,
        vec![annotated(task("x-2", &[]), in_span(&["p2"]))],
        &["x-2"],
    );
    t.submit(0, vec![task("x-3", &[])], &["x-3"]);
    for key in ["x-1", "x-2", "x-3"] {
        assert_eq!(span_of(&t, key), "id-p1");
    }
    let span_named = |key: &str| {
        let annotations = t.core.task(&Key::from(key)).unwrap().annotations.unwrap();
        SpanTag::from_value(annotations.raw.field("span").unwrap())
    };
    assert_eq!(span_named("x-2"), Some(tag(&["p1"])));
    assert_eq!(span_named("x-3"), Some(tag(&["p1"])));
    let other = t.core.task(&Key::from("x-2")).unwrap().annotations.unwrap();
    assert_eq!(other.raw.field("other").and_then(Value::as_u64), Some(1));
}

#[test]
fn a_span_outlives_its_tasks_with_what_they_cost() {
    let mut t = cluster();
    for _ in 0..2 {
        t.submit(
            0,
            vec![annotated(task("x", &[]), in_span(&["foo"]))],
            &["x"],
        );
        t.finish("x");
        t.release(0, &["x"]);
    }
    let groups = span(&t, "foo").groups;
    assert_eq!(groups.len(), 2, "a group that comes again is another one");
    assert_eq!(groups.iter().map(|g| g.states[7]).sum::<u64>(), 2);
    let figures = &groups[0].figures;
    assert_eq!(figures.durations, [("compute".into(), 1.0)]);
    assert_eq!(figures.nbytes_total, 100);
    assert!(t.core.groups().is_empty());
}

#[test]
fn what_a_worker_measured_is_added_up() {
    let mut t = cluster();
    t.submit(
        0,
        vec![annotated(task("x", &[]), in_span(&["foo"]))],
        &["x"],
    );
    let what = Key::tuple([
        "execute".into(),
        "x".into(),
        "thread-cpu".into(),
        "seconds".into(),
    ]);
    for _ in 0..2 {
        t.send(Event::Heartbeat(Heartbeat {
            worker: Some(WorkerId(0)),
            spans: vec![
                ("id-foo".into(), what.clone(), 0.25),
                ("unknown".into(), what.clone(), 1.0),
            ],
            ..Heartbeat::default()
        }));
    }
    assert_eq!(span(&t, "foo").metrics, [(what, 0.5)]);
}
