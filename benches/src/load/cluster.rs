//! A scheduler with its fakes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use oxidask_protocol::Value;
use oxidask_protocol::message::client::FromClient;
use oxidask_protocol::message::decode_one;

use crate::fakes::{FakeClient, FakeWorkers};
use crate::process::Scheduler;
use crate::recording::{self, Recording};

/// How much of everything there is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Sizes {
    /// Workers of one thread
    #[arg(long, default_value_t = 1000)]
    pub(crate) workers: usize,
    /// Clients
    #[arg(long, default_value_t = 200)]
    pub(crate) clients: usize,
    /// Small submits of each client that makes such
    #[arg(long, default_value_t = 10_000)]
    pub(crate) submits: usize,
    /// Calls that wait for a queue
    #[arg(long, default_value_t = 5_000)]
    pub(crate) gets: usize,
}

/// A scheduler under load.
pub(crate) struct Cluster {
    pub(crate) scheduler: Scheduler,
    pub(crate) workers: FakeWorkers,
    pub(crate) clients: Vec<FakeClient>,
    pub(crate) sizes: Sizes,
    recordings: PathBuf,
}

impl Cluster {
    /// Starts the scheduler and has everybody join.
    pub(crate) async fn start(command: &str, recordings: &Path, sizes: Sizes) -> Result<Self> {
        let versions: Value = decode_one(&recording::frames(recordings, "versions")?)?;
        let scheduler = Scheduler::start(command)?;
        let workers = FakeWorkers::join(&scheduler.address, sizes.workers, &versions).await?;
        let mut clients = Vec::with_capacity(sizes.clients);
        for number in 0..sizes.clients {
            clients.push(FakeClient::join(&scheduler.address, number, &versions).await?);
        }
        Ok(Self {
            scheduler,
            workers,
            clients,
            sizes,
            recordings: recordings.to_owned(),
        })
    }

    /// Computes and forgets a graph, so that helpers run and first allocations are made.
    pub(crate) async fn warm_up(&mut self) -> Result<()> {
        let graph = self.recording("map-500")?.named(u32::MAX);
        let client = &mut self.clients[0];
        client.expect(recording::wanted(&graph).len() as u64);
        client.submit(std::iter::once(graph.clone())).await?;
        client.complete().await?;
        client.release_graph(&graph).await
    }

    pub(crate) fn recording(&self, name: &str) -> Result<Recording> {
        Recording::read(&self.recordings, name)
    }

    /// So many graphs of one recording, under keys of their own.
    pub(crate) fn graphs(&self, name: &str, count: usize) -> Result<Vec<FromClient>> {
        let recording = self.recording(name)?;
        Ok((0..count as u32).map(|run| recording.named(run)).collect())
    }
}
