//! Child processes that never outlive this program.
//!
//! Each child leads a process group of its own, is killed by the kernel when we die, and is
//! stopped with its whole group when its [`Process`] is dropped or a signal ends us.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

/// Time a stopped process has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Process groups that a signal must take along.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A running child with its process group and the file that holds its output.
pub(crate) struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `program args…` with its output in `log`.
    ///
    /// Call from the main thread: the kernel's promise to kill the child holds for the life of
    /// the thread that started it.
    pub(crate) fn spawn(
        name: &str,
        program: &Path,
        args: &[OsString],
        env: &[(&str, OsString)],
        log: &Path,
    ) -> Result<Self> {
        let out =
            File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
        let err = out
            .try_clone()
            .context("failed to duplicate the log's file descriptor")?;
        let child = Command::new("/proc/self/exe")
            .arg("guard")
            .arg(std::process::id().to_string())
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        let group = Pid::from_child(&child);
        lock_groups().push(group);
        Ok(Self {
            name: name.to_owned(),
            child,
            group,
            log: log.to_path_buf(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The exit status, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last `lines` lines of its output.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text =
            String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
        let skip = text.lines().count().saturating_sub(lines);
        text.lines()
            .skip(skip)
            .map(|line| format!("    {line}\n"))
            .collect()
    }

    /// Asks for an end without waiting for it.
    pub(crate) fn terminate(&self) {
        // An error means that the group is gone already.
        let _ = rustix::process::kill_process_group(self.group, Signal::TERM);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            // Reap the leader first, since a zombie keeps its group alive.
            let leader_gone = self.ended().is_some();
            if leader_gone && rustix::process::test_kill_process_group(self.group).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
        lock_groups().retain(|group| *group != self.group);
    }
}

fn lock_groups() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    GROUPS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes SIGINT, SIGTERM and SIGHUP kill all children before they end us, and makes us the
/// parent of what our children leave behind.
pub(crate) fn install_signal_handling() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("failed to become the reaper of our descendants")?;
    ctrlc::set_handler(|| {
        for group in lock_groups().iter() {
            let _ = rustix::process::kill_process_group(*group, Signal::KILL);
        }
        kill_orphans();
        eprintln!("\ninterrupted; all processes stopped");
        std::process::exit(130);
    })
    .context("failed to install the signal handler")
}

/// Makes SIGINT, SIGTERM and SIGHUP end all that we started, do what `last` does, and then end us.
///
/// Unlike [`install_signal_handling`] it leaves alone who becomes the parent of daemons.
pub(crate) fn before_an_interrupt_ends_us(last: impl Fn() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("\ninterrupted; what was started is stopped first");
        kill_descendants(std::process::id());
        last();
        std::process::exit(130);
    })
    .context("failed to install the signal handler")
}

/// Whether a signal is ending us: its handler does what is left to do.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Returns at once, but never while a signal ends us: what failed by that is no news.
pub(crate) fn leave_it_to_an_interrupt() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Kills the children of `parent`, theirs, and so on, youngest first.
fn kill_descendants(parent: u32) {
    for (pid, _) in children_of(parent) {
        kill_descendants(pid.unsigned_abs());
        if let Some(pid) = Pid::from_raw(pid) {
            // One that has ended by itself meanwhile is as good.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Time that children of a process that has just ended get to follow it: the kernel's signal is on its way to them.
const FOLLOWING: Duration = Duration::from_secs(5);

/// Kills descendants that left their group and outlived their parent. Returns their command names.
pub(crate) fn kill_orphans() -> Vec<String> {
    let deadline = Instant::now() + FOLLOWING;
    while !children_of(std::process::id()).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut killed = Vec::new();
    // A killed orphan can hand us children of its own, so look again until none is left.
    for _ in 0..10 {
        let orphans = children_of(std::process::id());
        if orphans.is_empty() {
            break;
        }
        for (pid, name) in orphans {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                killed.push(name);
            }
        }
    }
    killed
}

/// Process id and command name of each child of `parent` that is not a zombie.
fn children_of(parent: u32) -> Vec<(i32, String)> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // "pid (name) state ppid …", where the name may hold spaces and parentheses.
            let (head, tail) = stat.rsplit_once(')')?;
            let mut fields = tail.split_whitespace();
            let state = fields.next()?;
            let ppid: u32 = fields.next()?.parse().ok()?;
            let name = head.split_once('(')?.1.to_owned();
            (ppid == parent && state != "Z").then_some((pid, name))
        })
        .collect()
}

/// What the hidden command `guard` runs, and for which parent.
#[derive(clap::Args)]
pub(crate) struct GuardArgs {
    parent: u32,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Becomes `program`, after asking the kernel to kill it when its parent dies.
///
/// The request survives `exec`, which makes this the one way to set it without unsafe code
/// between fork and exec.
pub(crate) fn guard(args: &GuardArgs) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("failed to tie this process to its parent")?;
    let parent =
        rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    anyhow::ensure!(parent == args.parent, "the parent has gone already");
    let error = Command::new(&args.program).args(&args.args).exec();
    Err(error).with_context(|| format!("failed to run {}", args.program.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_killed_with_the_children_that_started_them() {
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'sleep 30; true'; true"])
            .spawn()
            .unwrap();
        let grandchild = loop {
            let shells = children_of(child.id());
            let sleeps = shells
                .iter()
                .flat_map(|(pid, _)| children_of(pid.unsigned_abs()));
            if let Some((pid, _)) = sleeps.into_iter().find(|(_, name)| name == "sleep") {
                break Pid::from_raw(pid).unwrap();
            }
            assert!(child.try_wait().unwrap().is_none());
        };
        kill_descendants(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + GRACE;
        let state = || std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "{grandchild} still runs");
        }
    }

    #[test]
    fn children_of_finds_a_child_by_its_parent() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let found = children_of(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            found
                .iter()
                .any(|(pid, name)| *pid == child.id().cast_signed() && name == "sleep"),
            "{found:?}"
        );
    }
}
