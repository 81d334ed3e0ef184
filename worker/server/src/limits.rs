//! How much memory and CPU this process may use: the machine's, or its cgroup's if that is less.
//!
//! In a container the cgroup of the process is most often the root that it sees; elsewhere its own group and all
//! above it count.

use std::path::{Path, PathBuf};

/// Bytes of memory.
pub(crate) fn memory() -> u64 {
    memory_below(Path::new("/"))
}

/// Number of CPUs, at least one.
pub(crate) fn cpus() -> usize {
    let affinity = std::thread::available_parallelism().map_or(1, usize::from);
    cpus_below(Path::new("/"), affinity)
}

fn memory_below(root: &Path) -> u64 {
    let total = text(&root.join("proc/meminfo")).and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    });
    let groups = Groups::read(root);
    let v2 = groups.v2.iter().map(|group| group.join("memory.max"));
    let v1 = groups
        .v1("memory")
        .into_iter()
        .map(|group| group.join("memory.limit_in_bytes"));
    // "max" is no number, and version 1 writes a huge one.
    let limits = v2
        .chain(v1)
        .filter_map(|path| text(&path)?.trim().parse().ok());
    limits.chain(total).min().unwrap_or(u64::MAX)
}

fn cpus_below(root: &Path, affinity: usize) -> usize {
    let groups = Groups::read(root);
    let v2 = groups.v2.iter().filter_map(|group| {
        let text = text(&group.join("cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    let v1 = groups.v1("cpu").into_iter().filter_map(|group| {
        let number = |name: &str| text(&group.join(name))?.trim().parse::<f64>().ok();
        Some(number("cpu.cfs_quota_us")? / number("cpu.cfs_period_us")?)
    });
    // Version 1 writes -1 for no quota.
    let quotas = v2.chain(v1).filter(|quota| *quota > 0.0);
    quotas
        .map(|quota| (quota.ceil() as usize).max(1))
        .chain([affinity])
        .min()
        .unwrap_or(1)
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The groups of this process.
struct Groups {
    mount: PathBuf,
    /// Of version 2: its own and those above it.
    v2: Vec<PathBuf>,
    /// Of version 1: controllers and path.
    v1: Vec<(String, String)>,
}

impl Groups {
    fn read(root: &Path) -> Self {
        let mount = root.join("sys/fs/cgroup");
        let mut groups = Self {
            v2: vec![mount.clone()],
            v1: Vec::new(),
            mount,
        };
        // Lines of the form `number:controllers:path`; version 2 has number 0 and no controllers.
        for line in text(&root.join("proc/self/cgroup"))
            .unwrap_or_default()
            .lines()
        {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next(), parts.next()) {
                (Some(""), Some(path)) => groups.v2 = upwards(&groups.mount, path),
                (Some(controllers), Some(path)) => {
                    groups.v1.push((controllers.to_owned(), path.to_owned()));
                }
                _ => {}
            }
        }
        groups
    }

    /// The groups of version 1 that one controller looks at.
    fn v1(&self, controller: &str) -> Vec<PathBuf> {
        let mount = self.mount.join(controller);
        let own = self
            .v1
            .iter()
            .find(|(names, _)| names.split(',').any(|name| name == controller));
        upwards(&mount, own.map_or("", |(_, path)| path))
    }
}

/// The group at `path` below `mount`, and all above it. A path that cannot be seen from here leaves the mount.
fn upwards(mount: &Path, path: &str) -> Vec<PathBuf> {
    let own = mount.join(path.trim_start_matches('/'));
    let seen = own.ancestors().take_while(|group| group.starts_with(mount));
    seen.map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = (
            "proc/meminfo",
            "MemTotal:       16000000 kB\nMemFree: 1 kB\n",
        );
        for (name, content) in files.iter().chain([&meminfo]) {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn machine_without_limits_gives_all_it_has() {
        let root = root(&[
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(memory_below(root.path()), 16_000_000 * 1024);
        assert_eq!(cpus_below(root.path(), 8), 8);
    }

    #[test]
    fn version_2_limits_the_container() {
        let root = root(&[
            ("sys/fs/cgroup/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("proc/self/cgroup", "0::/\n"),
        ]);
        assert_eq!(memory_below(root.path()), 2 << 30);
        assert_eq!(cpus_below(root.path(), 8), 2);
    }

    #[test]
    fn version_2_counts_each_group_above_its_own() {
        let root = root(&[
            ("sys/fs/cgroup/pods/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pods/worker/memory.max", "max\n"),
            ("proc/self/cgroup", "0::/pods/worker\n"),
        ]);
        assert_eq!(memory_below(root.path()), 1 << 30);
    }

    #[test]
    fn version_1_limits_memory_and_cpu() {
        let root = root(&[
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes",
                "536870912\n",
            ),
            ("sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us", "100000\n"),
            ("sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            (
                "proc/self/cgroup",
                "7:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n",
            ),
        ]);
        assert_eq!(memory_below(root.path()), 512 << 20);
        assert_eq!(cpus_below(root.path(), 8), 1);
    }

    #[test]
    fn version_1_group_that_cannot_be_seen_leaves_the_root() {
        let root = root(&[
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
            ("proc/self/cgroup", "7:memory:/kubepods/burstable/pod1\n"),
        ]);
        assert_eq!(memory_below(root.path()), 256 << 20);
    }
}
