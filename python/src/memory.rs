//! How much memory this process and its children may use.

use std::fs;

/// The part of the memory that one child may take when nothing else is configured: half of what the cgroup
/// (v1 or v2) or the machine allows. 0 if neither tells.
///
/// Unit: bytes.
pub fn default_memory_limit() -> u64 {
    let limits = [
        number("/sys/fs/cgroup/memory.max"),
        number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        total(),
    ];
    limits.into_iter().flatten().min().unwrap_or(0) / 2
}

/// Resident memory of a process. Unit: bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn total() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
