//! The process beside the scheduler with a real interpreter, which `OXIDASK_PYTHON` names, and a scheduler of words.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::msgpack::{Reader, Writer};
use oxidask_protocol::wire::{Decode, Encode};
use oxidask_protocol::{Key, Payload, Value};
use oxidask_scheduler_server::aside::{
    Aside, AsideConfig, AsideError, FeedRequest, Hook, Message, P2pRequest, Pickle, Question,
    RunFunction, TaskInfo,
};
use tokio::sync::mpsc;

fn interpreter() -> PathBuf {
    std::env::var_os("OXIDASK_PYTHON")
        .expect("OXIDASK_PYTHON names an interpreter with dask")
        .into()
}

/// Pickles that belong to a name, made by the interpreter once for all tests.
fn pickles(name: &str) -> Vec<Bytes> {
    static MADE: OnceLock<BTreeMap<String, Vec<Bytes>>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let out = Command::new(interpreter())
            .args(["-c", include_str!("functions.py")])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let text = String::from_utf8(out.stdout).unwrap();
        let line = |line: &str| {
            let mut words = line.split(' ');
            (words.next().unwrap().to_owned(), words.map(unhex).collect())
        };
        text.lines().map(line).collect()
    });
    made[name].clone()
}

fn unhex(text: &str) -> Bytes {
    let text = text.trim_start_matches('-');
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn request(name: &str) -> RunFunction {
    let [function, args, kwargs] = pickles(name).try_into().unwrap();
    RunFunction {
        function,
        args,
        kwargs,
        wait: true,
    }
}

fn value(frames: &[Bytes]) -> Value {
    Value::decode(&mut Reader::of_message(frames).unwrap()).unwrap()
}

fn message(value: &Value) -> Message {
    let mut w = Writer::new();
    value.encode(&mut w);
    w.into_frames()
}

/// An aside whose questions are answered from a small made-up state: tasks x (in memory) and y (processing).
fn aside() -> Aside {
    let config = AsideConfig {
        python: Some(interpreter()),
        ..AsideConfig::default()
    };
    let (aside, questions) = Aside::new(config);
    tokio::spawn(answer_questions(questions));
    aside
}

async fn answer_questions(mut questions: mpsc::UnboundedReceiver<Question>) {
    while let Some(question) = questions.recv().await {
        match question {
            Question::Rpc {
                message: asked,
                reply,
            } => {
                let op = value(&asked)
                    .field("op")
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .to_owned();
                let worker = |threads: u64| {
                    Value::map([
                        ("name", "w".into()),
                        ("nthreads", threads.into()),
                        ("status", "running".into()),
                    ])
                };
                let workers = [
                    ("tcp://10.0.0.1:1", worker(2)),
                    ("tcp://10.0.0.1:2", worker(3)),
                    ("tcp://10.0.0.2:1", worker(4)),
                ];
                let answer = match op.as_str() {
                    "identity" => Value::map([("workers", Value::map(workers))]),
                    _ => Value::Nil,
                };
                reply.send(message(&answer)).unwrap();
            }
            Question::HooksChanged { reply } | Question::Replicas { reply, .. } => {
                let _ = reply.send(());
            }
            Question::TaskCount { reply } => reply.send(2).unwrap(),
            Question::TaskKeys { reply } => {
                reply.send(vec![Key::from("x"), Key::from("y")]).unwrap()
            }
            Question::Tasks { keys, reply, .. } => {
                reply.send(keys.iter().filter_map(task).collect()).unwrap();
            }
            Question::Attribute { name, reply } => {
                let nothing_more: [(&str, Value); 0] = [];
                let answer = match name.as_str() {
                    "address" => Some(Value::from("tcp://127.0.0.1:8786")),
                    "workers_state" => Some(Value::map(nothing_more)),
                    _ => None,
                };
                reply.send(answer).unwrap();
            }
        }
    }
}

fn task(key: &Key) -> Option<TaskInfo> {
    let in_memory = match key.as_str()? {
        "x" => true,
        "y" => false,
        _ => return None,
    };
    Some(TaskInfo {
        key: key.clone(),
        state: if in_memory { "memory" } else { "processing" },
        dependencies: Vec::new(),
        dependents: Vec::new(),
        who_has: if in_memory {
            vec!["tcp://10.0.0.1:1".into()]
        } else {
            Vec::new()
        },
        who_wants: Vec::new(),
        processing_on: None,
        more: Vec::new(),
        nbytes: None,
        priority: Vec::new(),
        exception: None,
        exception_text: None,
    })
}

/// The pickled result of a function, which must not have raised.
async fn result(aside: &Aside, name: &str) -> String {
    let reply = aside.run_function(request(name)).await.unwrap();
    let answer = value(&reply);
    assert_eq!(answer.field("status"), Some(&"OK".into()), "{answer:?}");
    let Some(Value::Payload(payload)) = answer.field("result") else {
        panic!("{answer:?}")
    };
    // Small results are pickled in the frame; what it holds is read by name.
    payload
        .frames
        .as_slice()
        .iter()
        .map(|frame| frame.escape_ascii().to_string())
        .collect()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn function_gets_its_arguments_and_gives_its_result() {
    let aside = aside();
    assert!(
        within(result(&aside, "add")).await.contains("K\\x03"),
        "3 as a pickle"
    );
    assert!(
        within(result(&aside, "coroutine"))
            .await
            .contains("awaited")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn error_of_a_function_is_a_reply_with_its_exception() {
    let reply = within(aside().run_function(request("divide")))
        .await
        .unwrap();
    let answer = value(&reply);
    assert_eq!(answer.field("status"), Some(&"error".into()));
    assert_eq!(
        answer.field("exception_text").unwrap().as_str(),
        Some("ZeroDivisionError('division by zero')")
    );
    assert!(matches!(answer.field("traceback"), Some(Value::Payload(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn facade_shows_the_scheduler() {
    let aside = aside();
    assert!(
        within(result(&aside, "address"))
            .await
            .contains("tcp://127.0.0.1:8786")
    );
    assert!(within(result(&aside, "tasks")).await.contains("memory"));
    let threads = within(result(&aside, "workers")).await;
    assert!(
        ["K\\x02", "K\\x03", "K\\x04"]
            .iter()
            .all(|number| threads.contains(number)),
        "{threads}"
    );
    let reply = within(aside.run_function(request("unknown")))
        .await
        .unwrap();
    let text = value(&reply)
        .field("exception_text")
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.starts_with("AttributeError") && text.contains("no_such_thing"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_sets_the_next_one_finds() {
    let aside = aside();
    within(result(&aside, "remember")).await;
    assert!(within(result(&aside, "recall")).await.contains("bar"));
}

#[tokio::test(flavor = "multi_thread")]
async fn function_that_blocks_holds_up_no_other() {
    let aside = aside();
    let blocked = tokio::spawn({
        let aside = aside.clone();
        async move { aside.run_function(request("sleeps")).await }
    });
    within(result(&aside, "add")).await;
    assert!(!blocked.is_finished());
    blocked.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn death_of_the_process_fails_open_calls_and_the_next_call_works() {
    let aside = aside();
    let error: AsideError = within(aside.run_function(request("dies")))
        .await
        .unwrap_err();
    assert!(error.exception_text.contains("exit status: 5"), "{error}");
    within(result(&aside, "add")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_hears_of_transitions_and_survives_a_new_process() {
    let aside = aside();
    assert!(!aside.wants(Hook::Transition));
    let [plugin] = pickles("plugin").try_into().unwrap();
    assert_eq!(
        within(aside.register_plugin(plugin, None, false))
            .await
            .unwrap(),
        "counter"
    );
    let tell = |stimulus: &'static str| {
        assert!(aside.wants(Hook::Transition) && !aside.wants(Hook::AddWorker));
        let args = ["x", "processing", "memory"].map(Value::from).to_vec();
        aside.tell(
            Hook::Transition,
            args,
            vec![("stimulus_id", stimulus.into())],
        );
    };
    tell("first");
    assert!(within(result(&aside, "seen")).await.contains("first"));
    within(aside.run_function(request("dies")))
        .await
        .unwrap_err();
    // The first call to the new process comes after its plugins.
    within(result(&aside, "add")).await;
    tell("second");
    let seen = within(result(&aside, "seen")).await;
    assert!(seen.contains("second") && !seen.contains("first"), "{seen}");
    within(aside.unregister_plugin("counter")).await.unwrap();
    assert!(!aside.wants(Hook::Transition));
    assert!(
        within(aside.unregister_plugin("counter"))
            .await
            .unwrap_err()
            .exception_text
            .starts_with("ValueError")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_bar_counts_down_to_finished() {
    let aside = aside();
    let [setup, function, teardown] = pickles("progress").try_into().unwrap();
    let mut feed = aside.feed(FeedRequest {
        setup,
        function,
        teardown,
        interval: "10ms".into(),
    });
    let first = value(&within(feed.next()).await.unwrap().unwrap());
    assert_eq!(
        (first.field("all"), first.field("remaining")),
        (Some(&Value::Int(2)), Some(&Value::Int(1)))
    );
    let args = ["y", "processing", "memory"].map(Value::from).to_vec();
    aside.tell(Hook::Transition, args, vec![("stimulus_id", "s".into())]);
    loop {
        let message = value(&within(feed.next()).await.unwrap().unwrap());
        if message.field("status") == Some(&"finished".into()) {
            assert_eq!(message.field("remaining"), Some(&Value::Int(0)));
            break;
        }
    }
    assert!(
        !aside.wants(Hook::Transition),
        "the bar took its plugin away"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_whose_setup_raises_ends_with_the_error() {
    let aside = aside();
    let [divide, _, _] = pickles("divide").try_into().unwrap();
    let mut feed = aside.feed(FeedRequest {
        setup: divide,
        interval: Value::from(0.1),
        ..FeedRequest::default()
    });
    let error = within(feed.next()).await.unwrap().unwrap_err();
    assert!(error.exception_text.starts_with("TypeError"), "{error}");
    assert!(within(feed.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_shuffle_are_dealt_to_workers() {
    let aside = aside();
    let [barrier] = pickles("barrier").try_into().unwrap();
    let request = P2pRequest {
        barrier: Payload::pickled(&barrier, Vec::new()).expect("a small pickle"),
        run_id: 77,
        workers: vec!["tcp://a:1".into(), "tcp://b:1".into()],
        existing: vec![(Key::tuple([Key::from(1), Key::from(0)]), "tcp://c:1".into())],
        span_id: None,
    };
    let spec = within(aside.p2p_spec(request)).await.unwrap();
    assert_eq!(spec.worker_for.len(), 2);
    assert!(
        spec.worker_for
            .contains(&(Key::tuple([Key::from(1), Key::from(0)]), "tcp://c:1".into()))
    );
    assert!(
        spec.run_spec.header.windows(2).any(|bytes| bytes == b"KM"),
        "the run has the number that was asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_grouped_by_a_users_function() {
    let aside = aside();
    let [by_host] = pickles("by_host").try_into().unwrap();
    let workers = ["tcp://10.0.0.1:1", "tcp://10.0.0.2:1", "tcp://10.0.0.1:2"].map(String::from);
    let payload = Payload::pickled(&by_host, Vec::new()).unwrap();
    for key in [Pickle::Bytes(by_host), Pickle::Payload(payload)] {
        let groups = within(aside.worker_groups(key, &workers)).await.unwrap();
        assert_eq!(groups, [0, 1, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_those_of_the_interpreter() {
    let reply = within(aside().versions(Value::Nil)).await.unwrap();
    let versions = value(&reply);
    assert!(
        versions
            .field("packages")
            .unwrap()
            .field("distributed")
            .unwrap()
            .as_str()
            .is_some()
    );
}
