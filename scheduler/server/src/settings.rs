//! What one scheduler is told at its start, from the command line and the configuration.

use std::path::PathBuf;
use std::time::Duration;

use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::comm::Tls;
use oxidask_protocol::frame::Limits;
use oxidask_scheduler_core as core;

use crate::conn::outbox::OutboxLimits;
use crate::extensions::Limits as ExtensionLimits;
use crate::graph::IntakeConfig;
use crate::peers::Measure;
use crate::rpc::rebalance::Rules;

/// All settings of the server; those of the state machine are in [`core`](Self::core).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on; port 0 asks for a free one.
    pub listen: Vec<Address>,
    /// Host that peers are told to use, if it is not the one listened on.
    pub contact_address: Option<String>,
    /// Certificates; without them only `tcp://` works.
    pub tls: Option<Tls>,
    /// Address and port of the HTTP server; `None` for none.
    pub dashboard: Option<(String, u16)>,
    /// First part of the paths of the HTTP server, without slashes; may be empty.
    pub dashboard_prefix: String,
    /// First word of the names of metrics.
    pub metrics_namespace: String,
    /// Address and port of the control API; `None` for none.
    pub control: Option<(String, u16)>,
    /// What the state machine is told.
    pub core: core::Config,
    /// The largest message that is read.
    pub limits: Limits,
    /// How much may wait for a peer that does not read.
    pub outbox: OutboxLimits,
    /// Time for a new connection to say who it is, and to be opened by us (`distributed.comm.timeouts.connect`).
    pub connect_timeout: Duration,
    /// Connections that the system may hold until they are accepted (`distributed.comm.socket-backlog`).
    pub backlog: u32,
    /// Connections that have not completed the handshake.
    pub max_handshakes: usize,
    /// Requests and streams that may be open at once.
    pub max_connections: usize,
    /// The interpreter as named on the command line.
    pub python: Option<PathBuf>,
    /// How graphs are taken in (`oxidask.graph`); its interpreter is the one above.
    pub graph: IntakeConfig,
    /// Interpreters of other environments, for graphs of clients that have their versions
    /// (`oxidask.graph.interpreters`).
    pub interpreters: Vec<PathBuf>,
    /// Modules to run at the start in the scheduler's Python process, with their arguments.
    pub preload: Vec<(String, Vec<String>)>,
    /// File that gets the identity of the scheduler as JSON.
    pub scheduler_file: Option<PathBuf>,
    /// File that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// The scheduler ends when nothing has been to do for so long. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Time that `adaptive_target` plans for (`distributed.adaptive.target-duration`).
    pub adaptive_target_duration: Duration,
    /// Which of a worker's memory the active memory manager looks at.
    pub memory_measure: Measure,
    /// Whether the active memory manager has policies that are Python.
    pub python_policies: bool,
    /// When `rebalance` moves data.
    pub rebalance: Rules,
    /// Limits of locks, events, topics and so on.
    pub extensions: ExtensionLimits,
    /// Operations that are refused (`distributed.scheduler.blocked-handlers`).
    pub blocked_handlers: Vec<String>,
    /// Log lines kept for `get_logs` (`distributed.admin.log-length`).
    pub log_length: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![Address {
                scheme: Scheme::Tcp,
                host: String::new(),
                port: 8786,
            }],
            contact_address: None,
            tls: None,
            dashboard: Some((String::new(), 8787)),
            dashboard_prefix: String::new(),
            metrics_namespace: "dask".to_owned(),
            control: None,
            core: core::Config::default(),
            limits: Limits::default(),
            outbox: OutboxLimits::default(),
            connect_timeout: Duration::from_secs(30),
            backlog: 2048,
            max_handshakes: 4096,
            max_connections: 100_000,
            python: None,
            graph: IntakeConfig::default(),
            interpreters: Vec::new(),
            preload: Vec::new(),
            scheduler_file: None,
            pid_file: None,
            idle_timeout: None,
            adaptive_target_duration: Duration::from_secs(5),
            python_policies: false,
            memory_measure: Measure::default(),
            rebalance: Rules::default(),
            extensions: ExtensionLimits::default(),
            blocked_handlers: Vec::new(),
            log_length: 10_000,
        }
    }
}
