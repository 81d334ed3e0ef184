//! Packages that differ between a client or worker, the workers, and the scheduler's interpreter.

use std::collections::{BTreeMap, BTreeSet};

use oxidask_protocol::Value;

/// Packages for which the scheduler's version counts (distributed `scheduler_relevant_packages`).
const OF_THE_SCHEDULER: &[&str] = &[
    "cloudpickle",
    "dask",
    "distributed",
    "lz4",
    "python",
    "toolz",
    "tornado",
];

/// The warning that a newcomer gets, as stock Dask words it; empty if nothing differs.
///
/// `scheduler`: versions that are known of the scheduler's interpreter; it need not have run yet. Who does not tell
/// its versions is passed over. Source: distributed `versions.error_message`.
pub fn warning<'a>(
    newcomer: &Value,
    name: &str,
    workers: impl Iterator<Item = &'a Value>,
    scheduler: &[(String, String)],
) -> String {
    let Some(own) = packages(newcomer) else {
        return String::new();
    };
    let mut of_workers: Vec<BTreeMap<&str, String>> = Vec::new();
    for worker in workers.filter_map(packages) {
        // Most are alike.
        if !of_workers.contains(&worker) {
            of_workers.push(worker);
        }
    }
    let missing = || "MISSING".to_owned();
    let names: BTreeSet<&str> = of_workers
        .iter()
        .chain([&own])
        .flat_map(BTreeMap::keys)
        .copied()
        .collect();
    let mut rows: Vec<[String; 4]> = Vec::new();
    for package in names {
        let newcomers = own.get(package).cloned().unwrap_or_else(missing);
        let workers: BTreeSet<String> = of_workers
            .iter()
            .map(|packages| packages.get(package).cloned().unwrap_or_else(missing))
            .collect();
        let schedulers = scheduler
            .iter()
            .find(|(known, _)| known == package)
            .map(|(_, version)| version.clone());
        let counts = OF_THE_SCHEDULER.contains(&package);
        let is_equal = workers.iter().all(|version| *version == newcomers)
            && schedulers
                .as_ref()
                .is_none_or(|version| !counts || *version == newcomers);
        if !is_equal {
            rows.push([
                package.to_owned(),
                newcomers,
                schedulers.unwrap_or_else(|| "-".to_owned()),
                shown(&workers),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let header = ["Package", name, "Scheduler", "Workers"].map(str::to_owned);
    format!("Mismatched versions found\n\n{}", table(&header, &rows))
}

/// Versions by package; `None` if they are not told.
fn packages(versions: &Value) -> Option<BTreeMap<&str, String>> {
    let Value::Map(pairs) = versions.field("packages")? else {
        return None;
    };
    Some(
        pairs
            .iter()
            .filter_map(|(name, version)| {
                Some((
                    name.as_str()?,
                    version.as_str().unwrap_or("None").to_owned(),
                ))
            })
            .collect(),
    )
}

/// One version as it is, several as Python shows a set.
fn shown(versions: &BTreeSet<String>) -> String {
    match versions.len() {
        0 => "None".to_owned(),
        1 => versions.iter().cloned().collect(),
        _ => {
            let quoted: Vec<String> = versions.iter().map(|v| format!("'{v}'")).collect();
            format!("{{{}}}", quoted.join(", "))
        }
    }
}

/// A table with bars, as distributed `asciitable` draws it.
fn table(header: &[String; 4], rows: &[[String; 4]]) -> String {
    let width = |i: usize| {
        let cells = rows
            .iter()
            .chain([header])
            .map(|row| row[i].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 4]| {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!(" {cell:<width$} |"))
            .collect();
        format!("|{}", cells.concat())
    };
    let bar = format!("+{}+", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let mut lines = vec![bar.clone(), line(header), bar.clone()];
    lines.extend(rows.iter().map(line));
    lines.push(bar);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(packages: &[(&'static str, &str)]) -> Value {
        let packages = packages.iter().map(|(name, version)| {
            let version = match *version {
                "" => Value::Nil,
                version => version.into(),
            };
            (*name, version)
        });
        Value::map([("packages", Value::map(packages))])
    }

    #[test]
    fn what_differs_is_shown_as_stock_shows_it() {
        let client = of(&[("dask", "2026.8.0"), ("numpy", "2.0"), ("lz4", "")]);
        let workers = [
            of(&[("dask", "2026.8.0"), ("numpy", "1.9"), ("lz4", "")]),
            of(&[("dask", "2026.8.0"), ("numpy", "2.0")]),
        ];
        let scheduler = [("dask".to_owned(), "2026.8.0".to_owned())];
        let text = warning(&client, "Client", workers.iter(), &scheduler);
        let expected = "\
Mismatched versions found

+---------+--------+-----------+---------------------+
| Package | Client | Scheduler | Workers             |
+---------+--------+-----------+---------------------+
| lz4     | None   | -         | {'MISSING', 'None'} |
| numpy   | 2.0    | -         | {'1.9', '2.0'}      |
+---------+--------+-----------+---------------------+";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_schedulers_version_counts_for_what_it_opens() {
        let client = of(&[("dask", "2026.8.0"), ("msgpack", "1.1")]);
        let known = |dask: &str| {
            vec![
                ("dask".to_owned(), dask.to_owned()),
                ("msgpack".to_owned(), "1.0".to_owned()),
            ]
        };
        let none = || std::iter::empty::<&Value>();
        assert_eq!(warning(&client, "Client", none(), &known("2026.8.0")), "");
        let text = warning(&client, "Client", none(), &known("2026.3.0"));
        assert!(
            text.contains("2026.3.0") && !text.contains("msgpack"),
            "{text}"
        );
    }

    #[test]
    fn who_tells_no_versions_is_passed_over() {
        let client = of(&[("dask", "1")]);
        assert_eq!(warning(&Value::Nil, "x", [&client].into_iter(), &[]), "");
        assert_eq!(warning(&client, "x", [&Value::Nil].into_iter(), &[]), "");
    }
}
