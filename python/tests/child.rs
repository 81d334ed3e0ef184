//! Children with a real interpreter, which the environment variable `OXIDASK_PYTHON` names.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::{Key, exception};
use oxidask_python::{Child, ChildError, ChildSettings, ConnectionError, Interpreter};

fn python() -> PathBuf {
    std::env::var_os("OXIDASK_PYTHON")
        .expect("OXIDASK_PYTHON names an interpreter with dask")
        .into()
}

fn interpreter() -> Interpreter {
    Interpreter::find(Some(&python())).unwrap()
}

fn lives(pid: u32) -> bool {
    // A process that has ended but was not waited for is a zombie: "pid (name) Z …".
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

async fn until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while lives(pid) {
        assert!(Instant::now() < deadline, "process {pid} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A program that stands in for an interpreter.
fn script(folder: &Path, text: &str) -> Interpreter {
    use std::os::unix::fs::PermissionsExt;

    let program = folder.join("python");
    fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Interpreter::find(Some(&program)).unwrap()
}

#[tokio::test]
async fn child_says_who_it_is_and_ends_with_its_connection() {
    let (child, connection) = Child::start(&interpreter(), &ChildSettings::new("graph"))
        .await
        .unwrap();
    assert!(child.hello().executable.contains("python"));
    let names: Vec<&str> = child
        .hello()
        .versions
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["python", "msgpack", "cloudpickle", "dask", "distributed"]
    );
    assert!(child.resident().unwrap() > 10 << 20);
    child.forget_output();
    assert_eq!(child.output(), "");
    drop(connection);
    until_gone(child.pid()).await;
}

#[tokio::test]
async fn dropped_child_is_killed() {
    let (child, _connection) = Child::start(&interpreter(), &ChildSettings::new("graph"))
        .await
        .unwrap();
    let pid = child.pid();
    drop(child);
    until_gone(pid).await;
}

#[tokio::test]
async fn killed_child_is_noticed_and_says_how_it_ended() {
    let (mut child, mut connection) = Child::start(&interpreter(), &ChildSettings::new("graph"))
        .await
        .unwrap();
    let pid = rustix::process::Pid::from_raw(child.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::SEGV).unwrap();
    assert!(matches!(
        connection.reader.read().await,
        Err(ConnectionError::Closed | ConnectionError::Io(_))
    ));
    assert!(child.ended().await.contains("signal: 11"));
}

#[tokio::test]
async fn unknown_role_is_refused() {
    let error = Child::start(&interpreter(), &ChildSettings::new("juggler"))
        .await
        .unwrap_err();
    let ChildError::Refused { kind, text, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (kind.as_str(), text.as_str()),
        ("role", "unknown role 'juggler'")
    );
}

#[tokio::test]
async fn program_that_is_no_python_is_named_with_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let error = Child::start(
        &script(folder.path(), "echo I am a snake >&2; exit 9"),
        &ChildSettings::new("graph"),
    )
    .await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains(folder.path().to_str().unwrap()) && text.contains("exit status: 9"),
        "{text}"
    );
    assert!(text.ends_with("I am a snake"), "{text}");
}

#[tokio::test]
async fn program_that_answers_nonsense_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // Standard input is the socket.
    let program = script(
        folder.path(),
        "printf 'HTTP/1.1 400 Bad Request\\r\\n\\r\\n' >&0; exec sleep 1000",
    );
    let error = Child::start(&program, &ChildSettings::new("graph"))
        .await
        .unwrap_err();
    assert!(matches!(error, ChildError::Ended { .. }), "{error}");
}

#[tokio::test]
async fn program_that_says_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ChildSettings {
        start_timeout: Duration::from_millis(200),
        ..ChildSettings::new("graph")
    };
    let error = Child::start(&script(folder.path(), "exec sleep 1000"), &settings)
        .await
        .unwrap_err();
    assert!(matches!(error, ChildError::Slow { .. }), "{error}");
}

/// Not a test of its own: a parent that dies without a word, run by the next one.
#[tokio::test]
#[ignore = "ends the test process"]
async fn parent_that_dies() {
    let (child, mut connection) = Child::start(&interpreter(), &ChildSettings::new("graph"))
        .await
        .unwrap();
    // A request that keeps the interpreter inside native code, where it cannot see the socket close.
    let mut w = Writer::new();
    w.map(3);
    w.str("op");
    w.str("plugin");
    w.str("name");
    w.str("sleeps");
    w.str("id");
    w.uint(1);
    let sleep = bytes::Bytes::from_static(b"ctime\nsleep\n(I1000\ntR.");
    connection
        .writer
        .write(&[vec![w.into_document(), sleep]])
        .await
        .unwrap();
    println!("child {}", child.pid());
    std::process::abort();
}

#[tokio::test]
async fn child_does_not_outlive_a_parent_that_dies() {
    let parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_that_dies", "--ignored", "--nocapture"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&parent.stdout).into_owned();
    let pid = text
        .lines()
        .find_map(|line| line.split("child ").nth(1))
        .unwrap_or_else(|| panic!("{text}"));
    until_gone(pid.trim().parse().unwrap()).await;
}

#[test]
fn exceptions_that_are_pickled_without_python_are_what_they_say() {
    let key = Key::from("inc-1");
    let (hosts, needs) = (["host".to_owned()], [("GPU".to_owned(), 1.5)]);
    let pickles = [
        exception::builtin("ValueError", "line\nwith 'quotes' and ü"),
        exception::killed_worker(&key, "tcp://127.0.0.1:1", "w", "127.0.0.1", 3),
        exception::no_valid_worker(&key, &hosts, &needs, 3.0),
    ];
    let hex = pickles.map(|pickle| {
        pickle
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    let code = "import pickle, sys\nfor text in sys.argv[1:]: e = pickle.loads(bytes.fromhex(text)); print(type(e).__name__, repr(str(e)))";
    let out = Command::new(python())
        .args(["-c", code])
        .args(hex)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(lines[0], r#"ValueError "line\nwith 'quotes' and ü""#);
    assert!(
        lines[1].starts_with("KilledWorker") && lines[1].contains("tcp://127.0.0.1:1"),
        "{text}"
    );
    assert!(lines[2].starts_with("NoValidWorkerError"), "{text}");
}
