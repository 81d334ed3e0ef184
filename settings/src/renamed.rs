//! Keys that had another name in older versions of Dask.

use crate::{ConfigError, Tree};

/// Old name, present name; as in distributed 2026.8.
const RENAMED: &[(&str, &str)] = &[
    ("allowed-failures", "distributed.scheduler.allowed-failures"),
    ("bandwidth", "distributed.scheduler.bandwidth"),
    (
        "default-data-size",
        "distributed.scheduler.default-data-size",
    ),
    ("work-stealing", "distributed.scheduler.work-stealing"),
    ("worker-ttl", "distributed.scheduler.worker-ttl"),
    (
        "multiprocessing-method",
        "distributed.worker.multiprocessing-method",
    ),
    ("use-file-locking", "distributed.worker.use-file-locking"),
    ("profile-interval", "distributed.worker.profile.interval"),
    ("profile-cycle-interval", "distributed.worker.profile.cycle"),
    ("worker-memory-target", "distributed.worker.memory.target"),
    ("worker-memory-spill", "distributed.worker.memory.spill"),
    ("worker-memory-pause", "distributed.worker.memory.pause"),
    (
        "worker-memory-terminate",
        "distributed.worker.memory.terminate",
    ),
    ("heartbeat-interval", "distributed.client.heartbeat"),
    ("compression", "distributed.comm.compression"),
    ("connect-timeout", "distributed.comm.timeouts.connect"),
    ("tcp-timeout", "distributed.comm.timeouts.tcp"),
    ("default-scheme", "distributed.comm.default-scheme"),
    ("socket-backlog", "distributed.comm.socket-backlog"),
    ("diagnostics-link", "distributed.dashboard.link"),
    ("bokeh-export-tool", "distributed.dashboard.export-tool"),
    ("tick-time", "distributed.admin.tick.interval"),
    ("tick-maximum-delay", "distributed.admin.tick.limit"),
    ("log-length", "distributed.admin.log-length"),
    ("log-format", "distributed.admin.log-format"),
    ("pdb-on-err", "distributed.admin.pdb-on-err"),
    (
        "transition-log-length",
        "distributed.admin.low-level-log-length",
    ),
    (
        "distributed.scheduler.transition-log-length",
        "distributed.admin.low-level-log-length",
    ),
    (
        "distributed.scheduler.events-log-length",
        "distributed.admin.low-level-log-length",
    ),
    (
        "recent-messages-log-length",
        "distributed.admin.low-level-log-length",
    ),
    (
        "distributed.comm.recent-messages-log-length",
        "distributed.admin.low-level-log-length",
    ),
    ("distributed.p2p.disk", "distributed.p2p.storage.disk"),
];

/// Moves values to the present names, unless these are set. Gives the old and new names of what was moved.
pub(crate) fn rename(tree: &mut Tree) -> Result<Vec<(&'static str, &'static str)>, ConfigError> {
    let mut moved = Vec::new();
    for (old, new) in RENAMED {
        let Some(value) = tree.remove(old) else {
            continue;
        };
        moved.push((*old, *new));
        if tree.get(new).is_none() {
            tree.set(new, value)
                .map_err(|(parent, found)| ConfigError::Clash {
                    source_name: format!("the old key {old}"),
                    key: (*new).to_owned(),
                    parent,
                    found,
                })?;
        }
    }
    Ok(moved)
}
