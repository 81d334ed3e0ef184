//! Native graphs on real processes: results, no interpreter, exchange with Python, stock workers.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use oxidask_client::array::Array;
use oxidask_client::{
    Binary, Client, ClientError, DType, Graph, Kernel, Key, Reduction, Scalar, Task,
};
use oxidask_e2e::processes::Processes;

const LONG: Duration = Duration::from_secs(60);

async fn cluster(workers: usize) -> (Processes, Client) {
    let mut processes = Processes::start();
    for number in 0..workers {
        processes.native_worker(&format!("w{number}"), 1);
    }
    let client = Client::connect(&processes.address).await.unwrap();
    client.wait_for_workers(workers, LONG).await.unwrap();
    (processes, client)
}

/// The interpreter of the environment with dask, as `cargo xtask test` names it.
fn python() -> Command {
    Command::new(std::env::var_os("OXIDASK_PYTHON").unwrap_or_else(|| "python3".into()))
}

async fn run_python(code: String) -> String {
    let run = move || python().args(["-c", &code]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[tokio::test]
async fn arrays_are_computed_in_chunks_without_any_interpreter() {
    let (processes, client) = cluster(2).await;
    let x = Array::uniform(7, &[300, 300], &[100, 100]).unwrap();
    let product = x.matmul(&x.transpose()).unwrap();
    let result = client.compute(&product).await.unwrap();
    let whole = client.compute(&x).await.unwrap();
    let transposed = Kernel::Transpose(Vec::new())
        .run(std::slice::from_ref(&whole), u64::MAX)
        .unwrap();
    let expected = Kernel::Matmul.run(&[whole, transposed], u64::MAX).unwrap();
    let (result, expected) = (
        result.view::<f64>().unwrap(),
        expected.view::<f64>().unwrap(),
    );
    assert!(
        result
            .iter()
            .zip(expected.iter())
            .all(|(a, b)| (a - b).abs() < 1e-9)
    );
    let total = client.compute(&x.sum(None).unwrap()).await.unwrap();
    assert_eq!(total.shape(), [1, 1]);
    let hits = client.map(
        "pi",
        (0..8).map(|chunk| Kernel::Pi {
            seed: 1,
            chunk,
            samples: 100_000,
        }),
        &[],
    );
    let hits: i64 = client
        .gather(&hits)
        .await
        .unwrap()
        .iter()
        .map(|hits| hits.view::<i64>().unwrap().sum())
        .sum();
    assert!(
        (4.0 * hits as f64 / 800_000.0 - std::f64::consts::PI).abs() < 0.01,
        "{hits}"
    );
    assert_eq!(
        processes.interpreters(),
        [],
        "native tasks need no interpreter"
    );
}

#[tokio::test]
async fn python_uses_a_native_result_and_a_native_task_one_of_python() {
    let (processes, client) = cluster(2).await;
    let address = processes.address.clone();
    let kernel = Kernel::Uniform {
        seed: 3,
        chunk: 0,
        shape: vec![200, 600],
        dtype: DType::F64,
        low: 0.0,
        high: 1.0,
    };
    let task = Task::new(Key::from("native-x"), kernel, Vec::new());
    let x = client
        .submit(Graph::from_iter([task]), &[Key::from("native-x")])
        .remove(0);
    x.wait().await.unwrap();
    // The small one travels in messages, the large one in memory files.
    let text = run_python(format!(
        "import numpy as np\n\
         from distributed import Client, Future\n\
         with Client('{address}') as client:\n\
         \x20   x = Future('native-x', client=client)\n\
         \x20   value = client.submit(lambda x: x, x, key='python-x').result()\n\
         \x20   expected = np.random.Generator(np.random.Philox(key=np.array([3, 0], 'u8'))).random((200, 600))\n\
         \x20   assert value.dtype == 'f8' and (value == expected).all()\n\
         \x20   y = client.submit(lambda x: x.T + 1, x, key='python-y')\n\
         \x20   z = client.submit(lambda x: np.arange(5), x, key='python-z')\n\
         \x20   assert (y.result() == expected.T + 1).all()\n\
         \x20   z.result()\n\
         \x20   client.publish_dataset(y=y, z=z)\n"
    ))
    .await;
    assert_eq!(text, "");
    let tasks = [
        Task::new(
            Key::from("sum-y"),
            Kernel::Reduce {
                op: Reduction::Sum,
                axes: Some(vec![1]),
                keep: false,
            },
            vec![Key::from("python-y")],
        ),
        Task::new(
            Key::from("twice-z"),
            Kernel::WithScalar {
                op: Binary::Multiply,
                scalar: Scalar::Int(2),
                reversed: false,
            },
            vec![Key::from("python-z")],
        ),
    ];
    let wanted = [Key::from("sum-y"), Key::from("twice-z")];
    let results = client
        .gather(&client.submit(Graph::from_iter(tasks), &wanted))
        .await
        .unwrap();
    let whole = client.gather(&[x]).await.unwrap();
    let expected = whole[0].view::<f64>().unwrap().sum_axis(ndarray::Axis(0)) + 200.0;
    let sums = results[0].view::<f64>().unwrap();
    assert!(
        sums.iter()
            .zip(expected.iter())
            .all(|(a, b)| (a - b).abs() < 1e-9)
    );
    assert_eq!(
        results[1].view::<i64>().unwrap().as_slice(),
        Some(&[0, 2, 4, 6, 8][..])
    );
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_with_which_task() {
    let (_processes, client) = cluster(1).await;
    let full = |shape: Vec<usize>| Kernel::Full {
        shape,
        dtype: DType::F64,
        value: Scalar::Int(1),
    };
    let tasks = [
        Task::new(Key::from("a"), full(vec![2, 3]), Vec::new()),
        Task::new(
            Key::from("bad"),
            Kernel::Matmul,
            vec![Key::from("a"), Key::from("a")],
        ),
        Task::new(Key::from("huge"), full(vec![1 << 40]), Vec::new()),
    ];
    let futures = client.submit(
        Graph::from_iter(tasks),
        &[Key::from("bad"), Key::from("huge")],
    );
    let text = futures[0].wait().await.unwrap_err().to_string();
    assert!(
        text.contains("bad") && text.contains("[2, 3] and [2, 3] do not go together"),
        "{text}"
    );
    let text = futures[1].wait().await.unwrap_err().to_string();
    assert!(text.contains("larger than"), "{text}");
    let circle = [
        Task::new(Key::from("p"), Kernel::Matmul, vec![Key::from("q")]),
        Task::new(Key::from("q"), Kernel::Matmul, vec![Key::from("p")]),
    ];
    let futures = client.submit(Graph::from_iter(circle), &[Key::from("p")]);
    let text = futures[0].wait().await.unwrap_err().to_string();
    assert!(text.contains("cycle"), "{text}");
}

#[tokio::test]
async fn a_worker_that_dies_costs_no_result() {
    let mut processes = Processes::start();
    processes.native_worker("a", 1);
    let client = Client::connect(&processes.address).await.unwrap();
    client.wait_for_workers(1, LONG).await.unwrap();
    let x = Array::uniform(1, &[400, 400], &[100, 100]).unwrap();
    let futures = client.persist(&x);
    client.wait(&futures).await.unwrap();
    processes.native_worker("b", 1);
    client.wait_for_workers(2, LONG).await.unwrap();
    processes.kill_worker(0);
    client.wait_for_workers(1, LONG).await.unwrap();
    let again = client.gather(&futures).await.unwrap();
    assert_eq!(again.len(), 16);
}

#[tokio::test]
async fn a_stock_worker_says_that_it_cannot_run_native_tasks() {
    let mut processes = Processes::start();
    let mut stock = python();
    stock.args([
        "-m",
        "distributed.cli.dask_worker",
        &processes.address,
        "--no-nanny",
        "--no-dashboard",
        "--nthreads",
        "1",
    ]);
    processes.spawn(stock);
    let client = Client::connect(&processes.address).await.unwrap();
    client.wait_for_workers(1, LONG).await.unwrap();
    let kernel = Kernel::Pi {
        seed: 1,
        chunk: 0,
        samples: 10,
    };
    let error = client
        .map("pi", [kernel], &[])
        .remove(0)
        .wait()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("native task")
            && error.to_string().contains("stock Dask worker"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stock_scheduler_is_refused_at_once() {
    let processes = {
        let mut processes = Processes::start();
        let mut stock = python();
        stock.args([
            "-m",
            "distributed.cli.dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--dashboard-address",
            ":0",
        ]);
        let file = std::env::temp_dir().join(format!("oxidask-stock-{}.json", std::process::id()));
        stock.arg("--scheduler-file").arg(&file);
        processes.spawn(stock);
        let deadline = std::time::Instant::now() + LONG;
        processes.address = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(start) = text.find("tcp://") {
                break text[start..].split('"').next().unwrap().to_owned();
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the stock scheduler does not start"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let _ = std::fs::remove_file(file);
        processes
    };
    let refused = Client::connect(&processes.address).await;
    assert!(matches!(refused.err(), Some(ClientError::NotOxidask(_))));
}
