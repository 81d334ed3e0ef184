//! The six loads. Each is made ready, measured, and taken away again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oxidask_protocol::message::client::FromClient;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::{Key, Value};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Sizes};
use crate::fakes::{FakeClient, LARGE, call, open};
use crate::recording::{Recording, wanted};

/// Clients that submit small graphs at once.
const SUBMITTERS: usize = 20;

/// Connections that put into the queue.
const PUTTERS: usize = 20;

/// A load: what it is called, and what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    /// Each client computes a graph of 500 tasks.
    Crowd,
    /// One graph of a million tasks.
    Million,
    /// 10,000 small submits from each of 20 clients at once.
    Submits,
    /// 100,000 futures released at once.
    Release,
    /// 5,000 blocked gets of a queue.
    Queues,
    /// A gather of 2 GB while submits go on.
    Gather,
}

/// What a load is ready to do, and how much of it there is.
pub(crate) struct Done {
    /// Things that were done, for a rate.
    pub(crate) amount: u64,
    /// What they are.
    pub(crate) unit: &'static str,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Load {
    pub(crate) const ALL: [Self; 6] = [
        Self::Crowd,
        Self::Million,
        Self::Submits,
        Self::Release,
        Self::Queues,
        Self::Gather,
    ];

    /// What is done, for people.
    pub(crate) fn sentence(self, sizes: &Sizes) -> String {
        match self {
            Self::Crowd => format!("{} clients compute 500 tasks each", sizes.clients),
            Self::Million => "1,000,000 tasks in one graph".to_owned(),
            Self::Submits => format!(
                "{} submits from each of {SUBMITTERS} clients",
                sizes.submits
            ),
            Self::Release => "100,000 futures released at once".to_owned(),
            Self::Queues => format!("{} blocked `queue_get`s served", sizes.gets),
            Self::Gather => "2 GB gathered while submits go on".to_owned(),
        }
    }

    /// What must be there before the load begins and is no part of it.
    pub(crate) async fn prepare(self, cluster: &mut Cluster) -> Result<Ready> {
        match self {
            Self::Crowd => Ok(Ready::Graphs(
                cluster.graphs("map-500", cluster.clients.len())?,
            )),
            Self::Million => Ok(Ready::Graphs(cluster.graphs("map-1m", 1)?)),
            Self::Submits => Ok(Ready::Recording(cluster.recording("submit")?)),
            Self::Release => {
                let graphs = cluster.graphs("map-100k", 1)?;
                compute(&mut cluster.clients[..1], &graphs).await?;
                Ok(Ready::Graphs(graphs))
            }
            Self::Queues => block(cluster).await,
            Self::Gather => {
                let graphs = cluster.graphs("large", 1)?;
                compute(&mut cluster.clients[..1], &graphs).await?;
                let submits = cluster.recording("submit")?;
                Ok(Ready::Results(graphs, submits))
            }
        }
    }

    /// The load itself.
    pub(crate) async fn run(self, cluster: &mut Cluster, ready: &mut Ready) -> Result<Done> {
        let begin = Instant::now();
        let (amount, unit) = match (self, ready) {
            (Self::Crowd | Self::Million, Ready::Graphs(graphs)) => {
                (compute(&mut cluster.clients, graphs).await?, "tasks")
            }
            (Self::Submits, Ready::Recording(recording)) => {
                let each = cluster.sizes.submits;
                (
                    submit(&mut cluster.clients, recording, 0, each).await?,
                    "tasks",
                )
            }
            (Self::Release, Ready::Graphs(graphs)) => {
                let before = cluster.workers.freed();
                let count = wanted(&graphs[0]).len() as u64;
                cluster.clients[0].release_graph(&graphs[0]).await?;
                while cluster.workers.freed() < before + count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                graphs.clear();
                (count, "keys")
            }
            (Self::Queues, Ready::Blocked(gets)) => (serve_queue(cluster, gets).await?, "gets"),
            (Self::Gather, Ready::Results(graphs, submits)) => {
                let keys = wanted(&graphs[0]).to_vec();
                let address = cluster.scheduler.address.clone();
                let gathering = tokio::spawn(async move { gather(&address, &keys).await });
                let each = cluster.sizes.submits / 20;
                submit(&mut cluster.clients[1..], submits, 0, each).await?;
                (gathering.await?? / 1_000_000, "MB")
            }
            _ => unreachable!("each load runs on what it has prepared"),
        };
        Ok(Done {
            amount,
            unit,
            took: begin.elapsed(),
        })
    }

    /// Takes away what the load has left.
    pub(crate) async fn clear(self, cluster: &mut Cluster, ready: Ready) -> Result<()> {
        match ready {
            Ready::Graphs(graphs) => {
                for (client, graph) in cluster.clients.iter_mut().zip(&graphs) {
                    client.release_graph(graph).await?;
                }
            }
            Ready::Recording(recording) => {
                let each = cluster.sizes.submits;
                release_submits(&mut cluster.clients, &recording, each).await?;
            }
            Ready::Results(graphs, submits) => {
                cluster.clients[0].release_graph(&graphs[0]).await?;
                let each = cluster.sizes.submits / 20;
                release_submits(&mut cluster.clients[1..], &submits, each).await?;
            }
            Ready::Blocked(gets) => drop(gets),
        }
        Ok(())
    }
}

/// What a load has prepared.
pub(crate) enum Ready {
    /// A graph for each client.
    Graphs(Vec<FromClient>),
    /// A graph to be sent many times.
    Recording(Recording),
    /// A graph whose results are there, and one to be sent beside.
    Results(Vec<FromClient>, Recording),
    /// Calls that wait.
    Blocked(JoinSet<Result<()>>),
}

/// Submits a graph for each client and waits for all results. Gives their number.
async fn compute(clients: &mut [FakeClient], graphs: &[FromClient]) -> Result<u64> {
    let mut all = 0;
    let count = |graph: &FromClient| wanted(graph).len() as u64;
    for (client, graph) in clients.iter_mut().zip(graphs) {
        client.expect(count(graph));
        client.submit(std::iter::once(graph.clone())).await?;
        all += count(graph);
    }
    for (client, _) in clients.iter().zip(graphs) {
        client.complete().await?;
    }
    Ok(all)
}

/// Has some clients submit the same small graph again and again, under keys of their own.
async fn submit(
    clients: &mut [FakeClient],
    recording: &Recording,
    first: usize,
    each: usize,
) -> Result<u64> {
    let submitters = clients.len().min(SUBMITTERS);
    let submitting =
        clients[..submitters]
            .iter_mut()
            .enumerate()
            .map(|(number, client)| async move {
                client.expect((each * recording.len()) as u64);
                let runs = first + number * each..first + (number + 1) * each;
                client
                    .submit(runs.map(|run| recording.named(run as u32)))
                    .await?;
                client.complete().await
            });
    for result in join_all(submitting).await {
        result?;
    }
    Ok((submitters * each * recording.len()) as u64)
}

async fn release_submits(
    clients: &mut [FakeClient],
    recording: &Recording,
    each: usize,
) -> Result<()> {
    for (number, client) in clients.iter_mut().take(SUBMITTERS).enumerate() {
        let runs = number * each..(number + 1) * each;
        let keys: Vec<Key> = runs
            .flat_map(|run| wanted(&recording.named(run as u32)).to_vec())
            .collect();
        client.release(keys).await?;
    }
    Ok(())
}

/// Runs futures side by side on this task.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

fn queue_name() -> (&'static str, Value) {
    ("name", "load".into())
}

/// Connections that each wait for an item of one queue.
async fn block(cluster: &Cluster) -> Result<Ready> {
    let address = cluster.scheduler.address.clone();
    let mut comm = open(&address).await?;
    comm.request(&call(
        "queue_create",
        [queue_name(), ("maxsize", 0_u64.into())],
    ))
    .await?;
    let mut gets = JoinSet::new();
    for _ in 0..cluster.sizes.gets {
        let mut comm = open(&address).await?;
        gets.spawn(async move {
            let fields = [
                queue_name(),
                ("timeout", Value::Nil),
                ("batch", false.into()),
            ];
            let reply: Value = decode_one(&comm.request(&call("queue_get", fields)).await?)?;
            ensure!(
                reply.field("value").is_some(),
                "queue_get answered {reply:?}"
            );
            Ok(())
        });
    }
    Ok(Ready::Blocked(gets))
}

/// Puts an item for each call that waits, and waits for all of them.
async fn serve_queue(cluster: &Cluster, gets: &mut JoinSet<Result<()>>) -> Result<u64> {
    let count = gets.len();
    let address = &cluster.scheduler.address;
    let putting = (0..PUTTERS).map(|putter| async move {
        let mut comm = open(address).await?;
        for item in (putter..count).step_by(PUTTERS) {
            let fields = [
                queue_name(),
                ("key", Value::Nil),
                ("data", item.into()),
                ("timeout", Value::Nil),
            ];
            comm.request(&call("queue_put", fields)).await?;
        }
        anyhow::Ok(())
    });
    for result in join_all(putting).await {
        result?;
    }
    while let Some(got) = gets.join_next().await {
        got??;
    }
    Ok(count as u64)
}

/// Fetches results through the scheduler and throws them away. Gives their bytes.
async fn gather(address: &oxidask_protocol::address::Address, keys: &[Key]) -> Result<u64> {
    let mut comm = open(address).await?;
    let keys_value = Value::Array(keys.iter().map(Value::from).collect());
    comm.writer
        .send(&call("gather", [("keys", keys_value)]))
        .await?;
    let head = comm
        .reader
        .read_head()
        .await?
        .context("no answer to gather")?;
    let lengths: usize = head.lengths.iter().sum();
    let mut bytes = 0;
    while let Some(piece) = comm.reader.read_body().await? {
        bytes += piece.len();
    }
    ensure!(
        bytes == lengths && bytes >= keys.len() * LARGE,
        "gathered {bytes} bytes of {} results",
        keys.len()
    );
    Ok(bytes as u64)
}
