//! Starting processes from a thread that never ends.
//!
//! A child asks the kernel to kill it when the *thread* that started it ends (`PR_SET_PDEATHSIG`). Threads of a
//! runtime come and go, so one thread of our own starts them all and lives as long as the process.

use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::thread;

use tokio::sync::oneshot;

struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts a process that may bind its life to ours.
///
/// # Errors
/// Those of [`Command::spawn`], or if no thread can be started.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    static LAUNCHER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let launcher = match LAUNCHER.get() {
        Some(launcher) => launcher,
        None => {
            // If two callers come first together, the launcher that loses ends with its sender, having started nothing.
            let started = start()?;
            LAUNCHER.get_or_init(|| started)
        }
    };
    let (reply, answer) = oneshot::channel();
    let stopped = || io::Error::other("the thread that starts processes has ended");
    launcher
        .send(Order { command, reply })
        .map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())?
}

fn start() -> io::Result<mpsc::Sender<Order>> {
    let (sender, orders) = mpsc::channel::<Order>();
    thread::Builder::new()
        .name("launcher".into())
        .spawn(move || {
            for mut order in orders {
                let started = order.command.spawn();
                if let Err(Ok(mut unwanted)) = order.reply.send(started) {
                    // The caller gave up while the process started.
                    let _ = unwanted.kill();
                    let _ = unwanted.wait();
                }
            }
        })?;
    Ok(sender)
}
