//! `oxidask status`, and the view that `oxidask up` shows.

use anyhow::Result;
use oxidask_client::{Client, Value};

use crate::connect::connect;

/// Prints one view of a cluster.
///
/// # Errors
/// If the scheduler cannot be reached.
pub(crate) async fn run(address: &str) -> Result<()> {
    let client = connect(address).await?;
    print!("{}", view(&client, address).await?);
    Ok(())
}

/// Workers with threads, tasks, memory and CPU, as text.
///
/// # Errors
/// If the scheduler does not answer.
pub(crate) async fn view(client: &Client, address: &str) -> Result<String> {
    let workers = client.workers().await?;
    let threads: u64 = workers
        .iter()
        .map(|(_, about)| number(about, &["nthreads"]) as u64)
        .sum();
    let mut text = format!(
        "scheduler {address}   workers {}   threads {threads}\n\n",
        workers.len()
    );
    text.push_str("worker                     threads  running   ready  in memory     memory  of limit    cpu\n");
    for (address, about) in &workers {
        let tasks = |state: &str| number(about, &["metrics", "task_counts", state]);
        let (memory, limit) = (
            number(about, &["metrics", "memory"]),
            number(about, &["memory_limit"]),
        );
        let share = if limit > 0.0 {
            format!("{:>7.0}%", memory / limit * 100.0)
        } else {
            "       -".to_owned()
        };
        text.push_str(&format!(
            "{address:<26} {:>7} {:>8} {:>7} {:>10} {:>10}  {share} {:>5.0}%\n",
            number(about, &["nthreads"]),
            tasks("executing"),
            tasks("ready") + tasks("constrained") + tasks("waiting"),
            tasks("memory"),
            bytes(memory),
            number(about, &["metrics", "cpu"]),
        ));
    }
    Ok(text)
}

/// A number inside nested maps, 0 if it is not there.
fn number(value: &Value, path: &[&str]) -> f64 {
    let found = path.iter().try_fold(value, |value, name| value.field(name));
    found.and_then(Value::as_f64).unwrap_or(0.0)
}

/// Bytes for people.
pub(crate) fn bytes(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit_that_suits_them() {
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(288e6), "288.0 MB");
        assert_eq!(bytes(2.5e9), "2.50 GB");
    }
}
