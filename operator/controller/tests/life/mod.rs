//! An operator process on the fake server, which can be killed and started anew.

use std::sync::Arc;

use oxidask_operator::client::patient;
use oxidask_operator::context::Settings;
use oxidask_operator::events::{Events, Level};
use oxidask_operator::metrics::Metrics;
use oxidask_operator::namespaces::Namespaces;
use oxidask_operator::run::{Operator, Parts};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake::scheduler::FakeScheduler;
use crate::fake::{self, Fake};

/// One life of an operator; it dies when this is dropped.
pub struct Life {
    pub operator: Operator,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Life {
    pub fn begin(fake: &Fake) -> Self {
        Self::with(fake, Settings::default())
    }

    pub fn with(fake: &Fake, settings: Settings) -> Self {
        let metrics = Metrics::new();
        let client = patient(fake::client(fake), &metrics);
        let operator = Operator::new(Parts {
            client: client.clone(),
            scheduler: Arc::new(FakeScheduler(fake.clone())),
            metrics: metrics.clone(),
            events: Events::new(client, None, Level::Normal),
            settings,
            namespaces: Namespaces::default(),
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let (operator, shutdown) = (operator.clone(), shutdown.clone());
            async move { operator.run(shutdown).await }
        });
        Self {
            operator,
            metrics,
            shutdown,
            task,
        }
    }

    /// Ends the process as a signal would, and waits for it.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}
