//! What all connections of one scheduler share.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};

use oxidask_protocol::comm::{CommError, Tls};
use oxidask_scheduler_core::{self as core, ClientId, Event};
use oxidask_settings::telemetry::LogBuffer;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::aside::{Aside, AsideConfig, Question};
use crate::clock::Clock;
use crate::conn::outbox::Flusher;
use crate::conn::pool::Pool;
use crate::coordinate::{self, Coordination};
use crate::driver::{Chore, Driver};
use crate::graph::Environments;
use crate::graph_log;
use crate::plugins::Plugins;
use crate::rpc::memory_sampler::Samplings;
use crate::rpc::shuffle::Shuffles;
use crate::settings::Settings;
use crate::steal_log;

/// How often one who does a slice of work lets others go on before the next, while somebody waits for the driver.
/// Waking who waits takes less.
const MOST_YIELDS: u32 = 1000;

/// One scheduler. Connections, the HTTP server and the control service each hold it.
#[derive(Debug)]
pub struct Server {
    /// What it was told at its start.
    pub settings: Settings,
    /// `Scheduler-…`, another at each start.
    pub id: String,
    /// Its clocks.
    pub clock: Clock,
    /// The latest log lines.
    pub log: LogBuffer,
    /// Connections closed because of a message that could not be understood.
    pub malformed: AtomicU64,
    driver: Mutex<Driver>,
    /// How many wait for the driver.
    waiting: AtomicUsize,
    /// Plugins that new workers and nannies get.
    pub plugins: Mutex<Plugins>,
    /// Connections that we open to workers.
    pub pool: Pool,
    /// Writes what streams have got, once per wake-up.
    pub flusher: Arc<Flusher>,
    /// Tells the timer task that the core's deadline came nearer.
    pub timer: Arc<Notify>,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// Done once the intake was told to get ready.
    pub warmed: Once,
    /// Turns graphs of Python clients into tasks.
    pub intake: Environments,
    /// Locks, queues, variables, events, topics and so on.
    pub coordination: Coordination,
    /// Memory samplings under way.
    pub samplings: Samplings,
    /// What new shuffles share.
    pub shuffles: Shuffles,
    /// The process for user code that runs "on the scheduler".
    pub aside: Aside,
    stop: watch::Sender<Option<String>>,
    addresses: OnceLock<Addresses>,
}

/// Where the scheduler is found; known once it listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Addresses that peers are told, the first being the main one.
    pub contact: Vec<String>,
    /// Port of the HTTP server, 0 for none.
    pub dashboard: u16,
    /// Port of the control API, if it is on.
    pub control: Option<u16>,
}

/// What the server wants to have done, each kind out of its own channel.
#[derive(Debug)]
pub struct Work {
    /// What the core asks for that takes time.
    pub chores: mpsc::UnboundedReceiver<Chore>,
    /// What user code beside the scheduler wants to know.
    pub questions: mpsc::UnboundedReceiver<Question>,
}

impl Server {
    /// A scheduler that does not listen yet, and what comes out of it to be done. Must be called inside a runtime.
    pub fn new(settings: Settings, log: LogBuffer) -> (Arc<Self>, Work) {
        let clock = Clock::start();
        let (chores, receiver) = mpsc::unbounded_channel();
        let (aside, questions) = Aside::new(AsideConfig {
            python: settings.python.clone(),
            ..AsideConfig::default()
        });
        let timer = Arc::new(Notify::new());
        let core = core::Config {
            seed: RandomState::new().hash_one(clock.started().to_bits()),
            ..settings.core.clone()
        };
        let driver = Driver::new(core, clock, chores, Arc::clone(&timer), aside.clone());
        let pool = Pool::new(
            settings.tls.clone(),
            settings.limits,
            settings.connect_timeout,
        );
        let server = Arc::new(Self {
            id: format!("Scheduler-{}", unique_id()),
            clock,
            log,
            malformed: AtomicU64::new(0),
            driver: Mutex::new(driver),
            waiting: AtomicUsize::new(0),
            plugins: Mutex::default(),
            pool,
            flusher: Arc::default(),
            timer,
            shutdown: CancellationToken::new(),
            warmed: Once::new(),
            intake: Environments::new(&settings.graph, &settings.interpreters),
            coordination: Coordination::new(&settings.extensions),
            samplings: Samplings::default(),
            shuffles: Shuffles::default(),
            aside,
            stop: watch::Sender::new(None),
            addresses: OnceLock::new(),
            settings,
        });
        let work = Work {
            chores: receiver,
            questions,
        };
        (server, work)
    }

    /// The driver. Never held across an `await`.
    pub fn driver(&self) -> MutexGuard<'_, Driver> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        driver
    }

    /// Gives those the driver who wait for it: the lock by itself would go to whoever unlocked it last.
    async fn let_others_in(&self) {
        tokio::task::yield_now().await;
        for _ in 0..MOST_YIELDS {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reports that time has passed, and logs what came of it.
    fn tick(&self) {
        let mut driver = self.driver();
        driver.handle(Event::Tick);
        steal_log::write(self, &mut driver);
        if graph_log::write(self, &mut driver) {
            coordinate::keys_changed(self, &mut driver);
        }
    }

    /// Has the core go on until it has taken in all that a client has sent; others come in between.
    pub async fn take_in(&self, client: ClientId) {
        while self.driver().core().is_behind(client) {
            self.tick();
            self.let_others_in().await;
        }
    }

    /// The plugins. Never held across an `await`.
    pub fn plugins(&self) -> MutexGuard<'_, Plugins> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the scheduler is found; called once.
    pub fn listening(&self, addresses: Addresses) {
        // A second call would be our bug, and the first answer stays right for the peers that have it.
        let _ = self.addresses.set(addresses);
    }

    /// The address that peers are told; empty before the scheduler listens.
    pub fn address(&self) -> &str {
        self.addresses
            .get()
            .and_then(|a| a.contact.first())
            .map_or("", String::as_str)
    }

    /// Port of the HTTP server, 0 for none.
    pub fn dashboard_port(&self) -> u16 {
        self.addresses.get().map_or(0, |a| a.dashboard)
    }

    /// Port of the control API, if it is on.
    pub fn control_port(&self) -> Option<u16> {
        self.addresses.get().and_then(|a| a.control)
    }

    /// How connections are encrypted.
    pub fn tls(&self) -> Option<&Tls> {
        self.settings.tls.as_ref()
    }

    /// Counts a connection that is closed because of what its peer sent.
    pub fn count_malformed(&self, error: &CommError) {
        if matches!(error, CommError::Decode { .. }) {
            self.malformed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the scheduler closed; returns at once.
    pub fn shutdown_soon(&self, reason: &str) {
        self.stop.send_replace(Some(reason.to_owned()));
    }

    /// Waits until [`shutdown_soon`](Self::shutdown_soon) is called and gives its reason.
    pub async fn stop_reason(&self) -> String {
        let mut stop = self.stop.subscribe();
        let stopped = stop.wait_for(Option::is_some).await;
        stopped.map_or_else(
            |_| String::new(),
            |reason| reason.clone().unwrap_or_default(),
        )
    }

    /// Reports the deadlines of the core and of the extensions, for ever.
    pub async fn keep_time(&self) {
        loop {
            let core = self.driver().next_deadline();
            let extensions = self.coordination.next_deadline();
            let Some(deadline) = core.into_iter().chain(extensions).min() else {
                self.timer.notified().await;
                continue;
            };
            let at = tokio::time::Instant::from_std(self.clock.instant(deadline));
            tokio::select! {
                biased;
                () = self.timer.notified() => {}
                () = tokio::time::sleep_until(at) => {
                    if core == Some(deadline) {
                        self.tick();
                        self.let_others_in().await;
                    }
                    if extensions == Some(deadline) {
                        coordinate::expire(self);
                    }
                }
            }
        }
    }
}

/// A text that no other process and no other call gives: 32 hexadecimal digits in the form of a UUID.
pub fn unique_id() -> String {
    // The standard library seeds this hasher from the system's random source.
    let word = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u128(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos()),
        );
        hasher.finish()
    };
    let (a, b) = (word(), word());
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_differ() {
        assert_ne!(super::unique_id(), super::unique_id());
        assert_eq!(super::unique_id().len(), 36);
    }
}
