//! Every configuration key of `distributed` and what the scheduler does with it.

use oxidask_settings::KeyRow;
use oxidask_settings::Treatment::{self, Elsewhere, Honoured, Ignored, Unsafe};

const fn row(key: &'static str, default: &'static str, treatment: Treatment) -> KeyRow {
    KeyRow {
        key,
        default,
        treatment,
    }
}

/// The keys. Those honoured stand with their defaults in `docs/configuration.md`, which a test compares.
pub(crate) const KEYS: &[KeyRow] = &[
    row("distributed.scheduler.allowed-failures", "3", Honoured),
    row("distributed.scheduler.bandwidth", "100000000", Honoured),
    row("distributed.scheduler.blocked-handlers", "[]", Honoured),
    row("distributed.scheduler.contact-address", "null", Honoured),
    row(
        "distributed.scheduler.dashboard.status.task-stream-length",
        "1000",
        Honoured,
    ),
    row(
        "distributed.scheduler.dashboard.tasks.task-stream-length",
        "100000",
        Honoured,
    ),
    row("distributed.scheduler.default-data-size", "1kiB", Honoured),
    row(
        "distributed.scheduler.default-task-durations",
        "{'rechunk-split': '1us', 'split-shuffle': '1us', 'split-stage': '1us', 'split-taskshuffle': '1us'}",
        Honoured,
    ),
    row("distributed.scheduler.events-cleanup-delay", "1h", Honoured),
    row("distributed.scheduler.idle-timeout", "null", Honoured),
    row(
        "distributed.scheduler.locks.lease-validation-interval",
        "10s",
        Honoured,
    ),
    row("distributed.scheduler.no-workers-timeout", "null", Honoured),
    row("distributed.scheduler.preload", "[]", Honoured),
    row("distributed.scheduler.preload-argv", "[]", Honoured),
    row(
        "distributed.scheduler.unknown-task-duration",
        "500ms",
        Honoured,
    ),
    row("distributed.scheduler.validate", "false", Honoured),
    row("distributed.scheduler.work-stealing", "true", Honoured),
    row(
        "distributed.scheduler.work-stealing-interval",
        "1s",
        Honoured,
    ),
    row(
        "distributed.scheduler.active-memory-manager.interval",
        "2s",
        Honoured,
    ),
    row(
        "distributed.scheduler.active-memory-manager.start",
        "true",
        Honoured,
    ),
    row(
        "distributed.scheduler.active-memory-manager.measure",
        "optimistic",
        Honoured,
    ),
    row(
        "distributed.scheduler.active-memory-manager.policies",
        "[{'class': 'distributed.active_memory_manager.ReduceReplicas'}]",
        Honoured,
    ),
    row("distributed.scheduler.rootish-taskgroup", "5", Honoured),
    row(
        "distributed.scheduler.rootish-taskgroup-dependencies",
        "5",
        Honoured,
    ),
    row("distributed.scheduler.worker-saturation", "1.1", Honoured),
    row("distributed.scheduler.worker-ttl", "5 minutes", Honoured),
    row("distributed.adaptive.target-duration", "5s", Honoured),
    row("distributed.admin.log-length", "10000", Honoured),
    row("distributed.admin.low-level-log-length", "1000", Honoured),
    row("distributed.comm.default-scheme", "tcp", Honoured),
    row("distributed.comm.require-encryption", "null", Honoured),
    row("distributed.comm.socket-backlog", "2048", Honoured),
    row("distributed.comm.timeouts.connect", "30s", Honoured),
    row("distributed.comm.timeouts.tcp", "30s", Honoured),
    row("distributed.comm.tls.ca-file", "null", Honoured),
    row("distributed.comm.tls.max-version", "null", Honoured),
    row("distributed.comm.tls.min-version", "1.2", Honoured),
    row("distributed.comm.tls.scheduler.cert", "null", Honoured),
    row("distributed.comm.tls.scheduler.key", "null", Honoured),
    row(
        "distributed.dashboard.prometheus.namespace",
        "dask",
        Honoured,
    ),
    row(
        "distributed.worker.memory.rebalance.measure",
        "optimistic",
        Honoured,
    ),
    row(
        "distributed.worker.memory.rebalance.recipient-max",
        "0.6",
        Honoured,
    ),
    row(
        "distributed.worker.memory.rebalance.sender-min",
        "0.3",
        Honoured,
    ),
    row(
        "distributed.worker.memory.rebalance.sender-recipient-gap",
        "0.1",
        Honoured,
    ),
    row("distributed.logging", "{}", Honoured),
    // Unsafe to pass over.
    row(
        "distributed.comm.tls.ciphers",
        "null",
        Unsafe("the ciphers of TLS 1.2 and 1.3 that are offered are all sound; leave the key out"),
    ),
    row(
        "distributed.scheduler.dashboard.tls",
        "{'ca-file': None, 'key': None, 'cert': None}",
        Unsafe("the HTTP server speaks no TLS; put a proxy before it, or use --no-dashboard"),
    ),
    // Without effect here; another value than the default is worth a warning.
    row(
        "distributed.scheduler.allowed-imports",
        "['dask', 'distributed']",
        Ignored,
    ),
    row(
        "distributed.scheduler.http.routes",
        "['distributed.http.scheduler.prometheus', 'distributed.http.scheduler.info', 'distributed.http.scheduler.json', 'distributed.http.health', 'distributed.http.proxy', 'distributed.http.statics']",
        Ignored,
    ),
    row(
        "distributed.scheduler.reuse-broadcast-comm",
        "true",
        Ignored,
    ),
    row(
        "distributed.admin.log-format",
        "%(asctime)s - %(name)s - %(levelname)s - %(message)s",
        Ignored,
    ),
    row("distributed.admin.pdb-on-err", "false", Ignored),
    row("distributed.comm.compression", "false", Ignored),
    row("distributed.comm.offload", "10MiB", Ignored),
    row(
        "distributed.comm.retry",
        "{'count': 0, 'delay': {'min': '1s', 'max': '20s'}}",
        Ignored,
    ),
    row("distributed.comm.shard", "64MiB", Ignored),
    row("distributed.comm.ucx", "null", Ignored),
    row(
        "distributed.comm.zstd",
        "{'level': 3, 'threads': 0}",
        Ignored,
    ),
    row(
        "distributed.diagnostics.erred-tasks.max-history",
        "100",
        Ignored,
    ),
    // Of clients, workers, cluster managers, or of the event loop, profiler and dashboard of Python.
    row("distributed.adaptive", "", Elsewhere),
    row("distributed.admin.event-loop", "", Elsewhere),
    row(
        "distributed.admin.large-graph-warning-threshold",
        "",
        Elsewhere,
    ),
    row("distributed.admin.max-error-length", "", Elsewhere),
    row("distributed.admin.system-monitor", "", Elsewhere),
    row("distributed.admin.tick", "", Elsewhere),
    row("distributed.client", "", Elsewhere),
    row("distributed.comm.tls.client", "", Elsewhere),
    row("distributed.comm.tls.worker", "", Elsewhere),
    row("distributed.comm.websockets", "", Elsewhere),
    row("distributed.dashboard", "", Elsewhere),
    row("distributed.deploy", "", Elsewhere),
    row("distributed.diagnostics", "", Elsewhere),
    row("distributed.nanny", "", Elsewhere),
    row("distributed.p2p", "", Elsewhere),
    row("distributed.rmm", "", Elsewhere),
    row(
        "distributed.scheduler.dashboard.bokeh-application",
        "",
        Elsewhere,
    ),
    row("distributed.scheduler.locks.lease-timeout", "", Elsewhere),
    row("distributed.version", "", Elsewhere),
    row("distributed.worker", "", Elsewhere),
];
