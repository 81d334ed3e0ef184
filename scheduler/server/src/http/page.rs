//! The status page: one HTML document without scripts and outside assets, that reloads itself.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::Response;

use super::{Cluster, PrefixRow, Shared, Snapshot, WorkerRow, with_type};

/// Prefixes shown; those with the most tasks come first.
const MAX_PREFIXES: usize = 50;

/// Workers shown.
const MAX_WORKERS: usize = 500;

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24; background: #fff }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { margin: .25rem 0; color: #57606a }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #d8dee4; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere }
th { font-weight: 600; color: #57606a }
.bar { display: flex; height: .8rem; border-radius: .4rem; overflow: hidden; background: #eaeef2; margin: .5rem 0 }
.memory { background: #1a7f37 } .processing { background: #0969da } .erred { background: #cf222e } .waiting { background: #bf8700 }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .3rem }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117 } th, td { border-color: #30363d } .bar { background: #21262d } p, th { color: #8d96a0 } }
";

pub(super) async fn status<C: Cluster>(State(shared): State<Shared<C>>) -> Response {
    with_type(
        "text/html; charset=utf-8",
        render(&shared.cluster.snapshot()),
    )
}

fn render(snapshot: &Snapshot) -> String {
    let mut page = String::with_capacity(16 * 1024);
    page.push_str("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\"><title>Dask scheduler</title><style>");
    page.push_str(STYLE);
    page.push_str("</style>");
    // Writing to a String does not fail.
    let _ = write!(
        page,
        "<h1>Dask scheduler</h1><p>{} · oxidask {} · up {}</p>",
        escape(&snapshot.address),
        snapshot.version,
        span(snapshot.now - snapshot.started),
    );
    let _ = write!(
        page,
        "<p>{} · {} · {} · {} of results · {} would be right</p>",
        count(snapshot.workers.len() as u64, "worker"),
        count(snapshot.sum(|w| w.nthreads), "thread"),
        count(snapshot.clients, "client"),
        bytes(snapshot.sum(|w| w.nbytes)),
        count(snapshot.desired_workers, "worker"),
    );
    tasks(&mut page, snapshot);
    workers(&mut page, &snapshot.workers);
    prefixes(&mut page, snapshot);
    page.push_str("<h2>More</h2><p><a href=\"metrics\">metrics</a> · <a href=\"json/counts.json\">counts</a> · <a href=\"json/identity.json\">identity</a> · <a href=\"json/state.json\">state</a> · <a href=\"health\">health</a></p></html>");
    page
}

fn tasks(page: &mut String, snapshot: &Snapshot) {
    let total: u64 = snapshot.tasks.iter().map(|(_, count)| count).sum();
    let _ = write!(page, "<h2>{}</h2>", count(total, "task"));
    let waiting = total
        - ["memory", "processing", "erred"]
            .iter()
            .map(|state| snapshot.tasks_in(state))
            .sum::<u64>();
    page.push_str("<div class=\"bar\">");
    let parts = [
        ("memory", snapshot.tasks_in("memory")),
        ("processing", snapshot.tasks_in("processing")),
        ("erred", snapshot.tasks_in("erred")),
        ("waiting", waiting),
    ];
    for (class, tasks) in parts.iter().filter(|(_, tasks)| *tasks > 0) {
        let _ = write!(
            page,
            "<div class=\"{class}\" style=\"flex:{tasks}\" title=\"{class}: {tasks}\"></div>"
        );
    }
    page.push_str("</div><p>");
    for (state, tasks) in &snapshot.tasks {
        let class = match *state {
            "memory" | "processing" | "erred" => *state,
            _ => "waiting",
        };
        let _ = write!(
            page,
            "<span class=\"dot {class}\"></span>{state} {tasks} &ensp;"
        );
    }
    page.push_str("</p>");
}

fn workers(page: &mut String, workers: &[WorkerRow]) {
    page.push_str("<h2>Workers</h2>");
    if workers.is_empty() {
        page.push_str(
            "<p>None yet. Start one with <code>dask worker</code> and the address above.</p>",
        );
        return;
    }
    page.push_str("<table><tr><th>Address<th>Name<th>State<th>Threads<th>Processing<th>In memory<th>Results<th>Memory<th>Limit<th>Last heard</tr>");
    for worker in workers.iter().take(MAX_WORKERS) {
        let name = match &worker.name {
            serde_json::Value::String(name) => name.clone(),
            other => other.to_string(),
        };
        let limit = match worker.memory_limit {
            0 => "none".to_owned(),
            limit => bytes(limit),
        };
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{limit}<td>{}</tr>",
            escape(&worker.address),
            escape(&name),
            worker.status,
            worker.nthreads,
            worker.processing,
            worker.in_memory,
            bytes(worker.nbytes),
            bytes(worker.memory),
            span(worker.silent_for),
        );
    }
    page.push_str("</table>");
    more(page, workers.len(), MAX_WORKERS);
}

fn prefixes(page: &mut String, snapshot: &Snapshot) {
    if snapshot.prefixes.is_empty() {
        return;
    }
    page.push_str("<h2>Functions</h2><table><tr><th>Prefix<th>Mean time");
    for (state, _) in &snapshot.tasks {
        let _ = write!(page, "<th>{state}");
    }
    page.push_str("</tr>");
    let mut prefixes: Vec<&PrefixRow> = snapshot.prefixes.iter().collect();
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.states.iter().sum::<u64>()));
    for prefix in prefixes.iter().take(MAX_PREFIXES) {
        let duration = prefix.duration.map_or_else(|| "–".to_owned(), span);
        let _ = write!(page, "<tr><td>{}<td>{duration}", escape(&prefix.name));
        for tasks in &prefix.states {
            let _ = write!(page, "<td>{tasks}");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
    more(page, prefixes.len(), MAX_PREFIXES);
}

fn more(page: &mut String, all: usize, shown: usize) {
    if all > shown {
        let _ = write!(
            page,
            "<p>and {} more in <a href=\"json/state.json\">state</a></p>",
            all - shown
        );
    }
}

fn count(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

fn bytes(number: u64) -> String {
    let mut size = number as f64;
    for unit in ["B", "kiB", "MiB", "GiB"] {
        if size < 1024.0 {
            let digits = usize::from(unit != "B" && size < 100.0);
            return format!("{size:.digits$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", (s * 1e6).max(0.0)),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// Text from peers as HTML text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_call_themselves_cannot_become_markup() {
        let snapshot = Snapshot {
            workers: vec![WorkerRow {
                address: "tcp://<script>".to_owned(),
                name: "\"><b>".into(),
                ..WorkerRow::default()
            }],
            prefixes: vec![PrefixRow {
                name: "<lambda>".to_owned(),
                ..PrefixRow::default()
            }],
            ..Snapshot::default()
        };
        let page = render(&snapshot);
        assert!(!page.contains("<script>") && !page.contains("<b>") && !page.contains("<lambda>"));
        assert!(page.contains("&lt;lambda&gt;"));
    }

    #[test]
    fn sizes_and_times_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 kiB");
        assert_eq!(bytes(500 << 20), "500 MiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(span(0.0), "0 µs");
        assert_eq!(span(0.25), "250 ms");
        assert_eq!(span(90.0), "90.0 s");
        assert_eq!(span(600.0), "10 min");
        assert_eq!(span(2e5), "2.3 days");
    }
}
