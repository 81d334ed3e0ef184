//! A client: one stream, and what came of the keys that it asked for.

use std::sync::Arc;

use anyhow::{Result, bail};
use oxidask_protocol::address::Address;
use oxidask_protocol::comm::{CommReader, CommWriter};
use oxidask_protocol::message::client::{ClientKeys, FromClient, ToClient};
use oxidask_protocol::message::{decode_batch, encode_batch};
use oxidask_protocol::wire::{KeySet, Omit};
use oxidask_protocol::{Key, Value};
use tokio::sync::watch;

use super::open;
use crate::recording::wanted;

/// Messages that a real client puts into one array while it submits as fast as it can.
const BATCH: usize = 32;

/// A registered client.
pub(crate) struct FakeClient {
    writer: CommWriter,
    /// Results that were reported, each once.
    reported: watch::Receiver<Reported>,
    /// Results that were asked for since the registration.
    expected: u64,
}

/// What the stream has told.
#[derive(Clone, Default)]
struct Reported {
    in_memory: u64,
    /// Why the load is no longer what it should be.
    trouble: Option<Arc<str>>,
}

impl FakeClient {
    pub(crate) async fn join(address: &Address, number: usize, versions: &Value) -> Result<Self> {
        let mut comm = open(address).await?;
        let register = Value::map([
            ("op", Value::from("register-client")),
            ("client", format!("Client-fake-{number}").into()),
            ("reply", false.into()),
            ("versions", versions.clone()),
        ]);
        comm.writer.send(&register).await?;
        if comm.reader.read().await?.is_none() {
            bail!("a client is refused");
        }
        let (sender, reported) = watch::channel(Reported::default());
        tokio::spawn(listen(comm.reader, sender));
        Ok(Self {
            writer: comm.writer,
            reported,
            expected: 0,
        })
    }

    /// Submits graphs as a client does that is in a hurry: some in each array.
    pub(crate) async fn submit(&mut self, graphs: impl Iterator<Item = FromClient>) -> Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        for graph in graphs {
            batch.push(graph);
            if batch.len() == BATCH {
                self.write(&std::mem::take(&mut batch)).await?;
            }
        }
        self.write(&batch).await
    }

    async fn write(&mut self, batch: &[FromClient]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        Ok(self.writer.write(&encode_batch(batch.iter())).await?)
    }

    /// So many more results will be asked for.
    pub(crate) fn expect(&mut self, count: u64) {
        self.expected += count;
    }

    /// Waits until all results have been reported that are expected.
    pub(crate) async fn complete(&self) -> Result<()> {
        let count = self.expected;
        let mut reported = self.reported.clone();
        let now = reported
            .wait_for(|now| now.in_memory >= count || now.trouble.is_some())
            .await?;
        match &now.trouble {
            Some(trouble) => bail!("after {} of {count} results: {trouble}", now.in_memory),
            None if now.in_memory > count => bail!("{} results instead of {count}", now.in_memory),
            None => Ok(()),
        }
    }

    pub(crate) async fn release(&mut self, keys: Vec<Key>) -> Result<()> {
        let message = FromClient::ClientReleasesKeys(ClientKeys {
            keys: KeySet {
                keys,
                is_set: false,
            },
            client: Omit(None),
        });
        self.write(&[message]).await
    }

    /// Ends all interest in the keys of a graph.
    pub(crate) async fn release_graph(&mut self, graph: &FromClient) -> Result<()> {
        self.release(wanted(graph).to_vec()).await
    }
}

async fn listen(mut reader: CommReader, reported: watch::Sender<Reported>) {
    let trouble = loop {
        let frames = match reader.read().await {
            Ok(Some(frames)) => frames,
            Ok(None) => break "the scheduler closed the stream".to_owned(),
            Err(error) => break error.to_string(),
        };
        let batch = match decode_batch::<ToClient>(&frames) {
            Ok(batch) => batch,
            Err(error) => break error.to_string(),
        };
        let mut in_memory = 0;
        let mut bad = None;
        for message in batch {
            match message {
                ToClient::KeyInMemory(_) => in_memory += 1,
                ToClient::TaskErred(body) => bad = Some(format!("{} has erred", body.key)),
                ToClient::LostData(body) => bad = Some(format!("{} was lost", body.key)),
                ToClient::CancelledKeys(body) => {
                    bad = Some(format!("{} keys were cancelled", body.keys.len()));
                }
                _ => {}
            }
        }
        reported.send_modify(|now| {
            now.in_memory += in_memory;
            now.trouble = now.trouble.take().or(bad.map(Into::into));
        });
    };
    reported.send_modify(|now| {
        now.trouble.get_or_insert(trouble.into());
    });
}
