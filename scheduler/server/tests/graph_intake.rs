//! Graph intake with a real interpreter, which the environment variable `OXIDASK_PYTHON` names.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::{Key, Payload};
use oxidask_scheduler_server::graph::{
    GraphErrorKind, GraphEvent, GraphEvents, GraphIntake, IntakeConfig, MaterialiseRequest, Node,
};

/// Expressions by name, made by the interpreter once for all tests.
struct Expressions(BTreeMap<String, MaterialiseRequest>);

/// Prints, for each expression, its name, whether a priority is given, the wanted keys and the frames, as hex.
const MAKE: &str = include_str!("expressions.py");

fn interpreter() -> PathBuf {
    std::env::var_os("OXIDASK_PYTHON")
        .expect("OXIDASK_PYTHON names an interpreter with dask")
        .into()
}

fn expression(name: &str) -> MaterialiseRequest {
    static MADE: OnceLock<Expressions> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let out = Command::new(interpreter())
            .args(["-c", MAKE])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        Expressions(
            String::from_utf8(out.stdout)
                .unwrap()
                .lines()
                .map(parse)
                .collect(),
        )
    });
    made.0
        .get(name)
        .unwrap_or_else(|| panic!("no expression {name}"))
        .clone()
}

fn parse(line: &str) -> (String, MaterialiseRequest) {
    let mut words = line.split(' ');
    let name = words.next().unwrap().to_owned();
    let given = words.next().unwrap() == "given";
    let wanted: Vec<Key> = words.next().unwrap().split(',').map(Key::from).collect();
    let mut frames = words.map(unhex);
    let header = frames.next().unwrap();
    let internal_priority = given.then(|| wanted.iter().cloned().zip(0..).collect());
    let request = MaterialiseRequest {
        expr: Payload::serialized(header, frames.collect()),
        wanted,
        internal_priority,
        annotations: None,
    };
    (name, request)
}

fn unhex(text: &str) -> Bytes {
    let text = text.trim_start_matches('-');
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn config() -> IntakeConfig {
    IntakeConfig {
        python: Some(interpreter()),
        ..IntakeConfig::default()
    }
}

/// All that comes for a request: the nodes, and the failure if it failed.
async fn answer(mut events: GraphEvents) -> (Vec<Node>, Option<(GraphErrorKind, String)>) {
    let mut nodes = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv())
            .await
            .expect("an answer in time");
        match event.expect("an end before the channel closes") {
            GraphEvent::Nodes(some) => nodes.extend(some),
            GraphEvent::Done(end) => {
                assert_eq!(end.nodes, nodes.len());
                return (nodes, None);
            }
            GraphEvent::Failed(error) => return (nodes, Some((error.kind, error.exception_text))),
        }
    }
}

async fn nodes_of(intake: &GraphIntake, name: &str) -> Vec<Node> {
    let (nodes, error) = answer(intake.submit("client", expression(name))).await;
    assert_eq!(error, None);
    nodes
}

async fn failure_of(intake: &GraphIntake, name: &str) -> (GraphErrorKind, String) {
    let (_, error) = answer(intake.submit("client", expression(name))).await;
    error.unwrap_or_else(|| panic!("{name} should fail"))
}

#[tokio::test(flavor = "multi_thread")]
async fn small_graph_comes_with_dependencies_and_order() {
    let intake = GraphIntake::new(config());
    let nodes = nodes_of(&intake, "chain").await;
    let of = |key: &str| {
        nodes
            .iter()
            .find(|node| node.key == Key::from(key))
            .unwrap()
    };
    assert_eq!(nodes.len(), 3, "what is not wanted is left out");
    let mut dependencies = of("c").dependencies.clone();
    dependencies.sort();
    assert_eq!(dependencies, [Key::from("b"), Key::from("elsewhere")]);
    assert_eq!(of("b").dependencies, [Key::from("a")]);
    assert!(of("a").priority < of("b").priority && of("b").priority < of("c").priority);
    assert!(of("a").data_producer, "a literal produces data");
}

#[tokio::test(flavor = "multi_thread")]
async fn map_by_value_shares_the_function() {
    let intake = GraphIntake::new(config());
    let nodes = nodes_of(&intake, "map_by_value").await;
    assert_eq!(nodes.len(), 1000);
    let shared = &nodes[0].run_spec.frames;
    assert_eq!(shared.as_slice().len(), 1);
    for (i, node) in nodes.iter().enumerate() {
        assert_eq!(node.priority, i as i64);
        assert_eq!(
            node.run_spec.frames.as_slice().as_ptr(),
            shared.as_slice().as_ptr(),
            "one list for all nodes"
        );
        assert!(node.run_spec.header.len() < 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_graph_streams_in_priority_order() {
    let intake = GraphIntake::new(config());
    let nodes = nodes_of(&intake, "tree").await;
    let places: std::collections::HashMap<_, _> = nodes
        .iter()
        .map(|node| (&node.key, node.priority))
        .collect();
    assert_eq!(nodes.len(), 1023);
    assert!(
        nodes
            .windows(2)
            .all(|pair| pair[0].priority < pair[1].priority)
    );
    for node in &nodes {
        assert!(
            node.dependencies
                .iter()
                .all(|key| places[key] < node.priority)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_reach_their_tasks() {
    let intake = GraphIntake::new(config());
    let nodes = nodes_of(&intake, "annotated").await;
    let retries: Vec<u32> = nodes.iter().map(|node| node.annotations.retries).collect();
    assert!(retries.contains(&3) && retries.contains(&0), "{retries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_client_are_answered_in_order() {
    let intake = GraphIntake::new(config());
    let all: Vec<_> = (0..300)
        .map(|_| intake.submit("client", expression("submit")))
        .collect();
    for events in all {
        let (nodes, error) = answer(events).await;
        assert_eq!((nodes.len(), error), (1, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exception_of_the_graph_is_the_clients() {
    let intake = GraphIntake::new(config());
    let (kind, text) = failure_of(&intake, "raises_when_materialised").await;
    assert_eq!(kind, GraphErrorKind::Raised);
    assert_eq!(text, "ZeroDivisionError('mine')");
    nodes_of(&intake, "submit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cycle_is_an_error_that_names_its_tasks() {
    let intake = GraphIntake::new(config());
    for name in ["small_cycle", "large_cycle"] {
        let (kind, text) = failure_of(&intake, name).await;
        assert_eq!(kind, GraphErrorKind::BadGraph);
        assert!(
            text.contains("Cycle detected") && text.contains("-> a"),
            "{text}"
        );
        nodes_of(&intake, "submit").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn annotation_of_a_wrong_type_is_an_error_that_names_it() {
    let intake = GraphIntake::new(config());
    let (kind, text) = failure_of(&intake, "wrong_annotation").await;
    assert_eq!(kind, GraphErrorKind::Raised);
    assert!(text.contains("retries"), "{text}");
    nodes_of(&intake, "submit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_module_and_interpreter_are_named() {
    let intake = GraphIntake::new(config());
    let (kind, text) = failure_of(&intake, "missing_module").await;
    assert_eq!(kind, GraphErrorKind::Raised);
    assert!(
        text.contains("Error during deserialization of the task graph"),
        "{text}"
    );
    assert!(text.contains("has no module 'no_such_module'"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_that_ends_the_process_fails_and_the_next_succeeds() {
    let intake = GraphIntake::new(config());
    let bad = intake.submit("client", expression("exits"));
    let good = intake.submit("client", expression("submit"));
    let (_, error) = answer(bad).await;
    let (kind, text) = error.unwrap();
    assert_eq!(kind, GraphErrorKind::Crashed);
    assert!(
        text.contains("exit status: 7") && text.contains(interpreter().to_str().unwrap()),
        "{text}"
    );
    assert_eq!(answer(good).await.1, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_that_allocates_without_end_is_a_memory_error() {
    let intake = GraphIntake::new(IntakeConfig {
        memory_limit: 600 << 20,
        ..config()
    });
    let (_, text) = failure_of(&intake, "allocates").await;
    assert!(text.contains("MemoryError"), "{text}");
    nodes_of(&intake, "submit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_that_sleeps_meets_its_deadline_and_holds_up_nobody_else() {
    let intake = GraphIntake::new(IntakeConfig {
        timeout: Duration::from_secs(6),
        helpers: 1,
        ..config()
    });
    nodes_of(&intake, "submit").await;
    let sleeper = intake.submit("sleepy", expression("sleeps"));
    let (_, error) = answer(intake.submit("other", expression("submit"))).await;
    assert_eq!(error, None);
    assert!(
        sleeper.is_empty(),
        "the other client did not wait for the sleeper"
    );
    let (kind, text) = answer(sleeper).await.1.unwrap();
    assert_eq!(kind, GraphErrorKind::TimedOut);
    assert!(text.contains("oxidask.graph.timeout"), "{text}");
    nodes_of(&intake, "submit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_interpreter_is_named() {
    let intake = GraphIntake::new(IntakeConfig {
        python: Some("/no/such/python".into()),
        ..IntakeConfig::default()
    });
    let (kind, text) = failure_of(&intake, "submit").await;
    assert_eq!(kind, GraphErrorKind::NoInterpreter);
    assert!(text.contains("/no/such/python"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interpreter_without_dask_is_named_with_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let bare = bare_interpreter(folder.path());
    let intake = GraphIntake::new(IntakeConfig {
        python: Some(bare.clone()),
        ..IntakeConfig::default()
    });
    let (kind, text) = failure_of(&intake, "submit").await;
    assert_eq!(kind, GraphErrorKind::NoInterpreter);
    assert!(
        text.contains(bare.to_str().unwrap()) && text.contains("cannot import msgpack"),
        "{text}"
    );
}

/// An interpreter that sees its standard library only.
fn bare_interpreter(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;

    let program = folder.join("python-without-dask");
    let text = format!("#!/bin/sh\nexec {} -S -E \"$@\"\n", interpreter().display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}
