//! `oxidask up`: a cluster in the terminal.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use anyhow::{Result, bail};
use oxidask_client::Client;

use crate::args::Up;
use crate::local::{LocalCluster, Plan};
use crate::status::view;

/// How often the view is drawn anew.
const REFRESH: Duration = Duration::from_millis(500);

/// How long workers may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a cluster until it is told to end.
///
/// # Errors
/// If it cannot start, or one of its processes ends by itself.
pub(crate) async fn run(up: &Up) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let plan = Plan {
        workers: up.workers,
        threads: if up.threads == 0 {
            (cpus / up.workers.max(1)).max(1)
        } else {
            up.threads
        },
        memory_limit: up.memory_limit.clone(),
        host: up.host.clone(),
        port: up.port,
        dashboard_port: up.dashboard_port,
        lazy_executor: up.lazy_executor,
        pin: false,
    };
    let mut cluster = LocalCluster::start(&plan)?;
    let client = Client::connect(&cluster.address).await?;
    client
        .wait_for_workers(up.workers, REGISTER_TIMEOUT)
        .await?;
    if up.json {
        println!(
            "{}",
            serde_json::json!({"address": cluster.address, "dashboard": cluster.dashboard, "workers": up.workers, "threads": plan.threads})
        );
        if up.detach {
            interrupted().await?;
            return Ok(());
        }
        // Whoever started us has gone when our standard input ends. A thread of its own waits for that, since one
        // of the runtime's could not be left behind.
        let (end, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = std::io::stdin().read_to_end(&mut rest);
            let _ = end.send(());
        });
        tokio::select! {
            _ = ended => {}
            stopped = interrupted() => stopped?,
        }
        return Ok(());
    }
    println!(
        "connect with Client({:?}); status page {}/status; Ctrl-C ends the cluster\n",
        cluster.address, cluster.dashboard
    );
    let terminal = std::io::stdout().is_terminal();
    let mut drawn = 0;
    let mut ticks = tokio::time::interval(if terminal { REFRESH } else { REFRESH * 20 });
    loop {
        tokio::select! {
            stopped = interrupted() => {
                stopped?;
                break;
            }
            _ = ticks.tick() => {}
        }
        if let Some(how) = cluster.ended()? {
            bail!("{how}");
        }
        let text = view(&client, &cluster.address).await?;
        if terminal && drawn > 0 {
            // Up by as many lines as were drawn, and clear from there on.
            print!("\x1b[{drawn}A\x1b[J");
        }
        print!("{text}");
        std::io::stdout().flush()?;
        drawn = text.lines().count();
    }
    println!("\nthe cluster ends");
    Ok(())
}

/// Waits for Ctrl-C or for being asked to end: the cluster's processes must not be left behind.
async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
