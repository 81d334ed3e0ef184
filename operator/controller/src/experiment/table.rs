//! From rows to the table: medians, speed-up, efficiency. Pure.

use std::collections::BTreeMap;

use oxidask_operator_api::experiment::{ExperimentRow, TableRow};

/// One line for each combination of nodes, cores and size that has a row,
/// ordered by size, nodes, cores.
pub(crate) fn table(rows: &[ExperimentRow]) -> Vec<TableRow> {
    let mut groups: BTreeMap<(i64, i64, i64), Vec<&ExperimentRow>> = BTreeMap::new();
    for row in rows {
        groups
            .entry((row.size, row.nodes, row.cores))
            .or_default()
            .push(row);
    }
    let mut table: Vec<TableRow> = groups
        .into_iter()
        .map(|((size, nodes, cores), rows)| {
            let times: Vec<f64> = rows.iter().filter_map(|row| row.seconds).collect();
            let mut failures = rows.iter().filter(|row| row.seconds.is_none());
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            TableRow {
                nodes,
                cores,
                size,
                runs: count(times.len()),
                failed: count(failures.clone().count()),
                reason: failures.next_back().map(why),
                seconds: median(times),
                speedup: None,
                efficiency: None,
            }
        })
        .collect();
    let bases: Vec<Option<(f64, f64)>> = table.iter().map(|row| base(&table, row.size)).collect();
    for (row, base) in table.iter_mut().zip(bases) {
        let (Some(seconds), Some((base_seconds, base_threads))) = (row.seconds, base) else {
            continue;
        };
        let speedup = base_seconds / seconds;
        row.speedup = Some(rounded(speedup));
        row.efficiency = Some(rounded(speedup * base_threads / threads(row)));
    }
    table
}

/// The best line of the largest size that has a time: `3 × 2: 1.23 s`.
pub(crate) fn best(table: &[TableRow]) -> Option<String> {
    let size = table
        .iter()
        .filter(|row| row.seconds.is_some())
        .map(|row| row.size)
        .max()?;
    let row = table
        .iter()
        .filter(|row| row.size == size && row.seconds.is_some())
        .min_by(|a, b| f64::total_cmp(&a.seconds.unwrap_or(0.0), &b.seconds.unwrap_or(0.0)))?;
    let seconds = row.seconds?;
    let speedup = row
        .speedup
        .map(|speedup| format!(", {speedup:.2} times"))
        .unwrap_or_default();
    Some(format!(
        "{} × {}: {} s{speedup}",
        row.nodes,
        row.cores,
        three_digits(seconds)
    ))
}

/// Seconds and threads of the base of a size: of the lines that have a time
/// the one with the fewest threads, of equals the one with fewer nodes.
fn base(table: &[TableRow], size: i64) -> Option<(f64, f64)> {
    table
        .iter()
        .filter(|row| row.size == size)
        .filter_map(|row| Some((row, row.seconds?)))
        .min_by(|(a, _), (b, _)| {
            f64::total_cmp(&threads(a), &threads(b)).then(a.nodes.cmp(&b.nodes))
        })
        .map(|(row, seconds)| (seconds, threads(row)))
}

fn threads(row: &TableRow) -> f64 {
    row.nodes as f64 * row.cores as f64
}

fn why(row: &&ExperimentRow) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}: {}", text(&row.reason), text(&row.error))
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() {
        0 => None,
        odd if odd % 2 == 1 => times.get(middle).copied(),
        _ => Some((times.get(middle - 1)? + times.get(middle)?) / 2.0),
    }
}

/// To four digits after the point: more is noise, and would make every status
/// a different one.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

fn three_digits(seconds: f64) -> String {
    match seconds {
        s if s >= 100.0 => format!("{s:.0}"),
        s if s >= 10.0 => format!("{s:.1}"),
        s if s >= 1.0 => format!("{s:.2}"),
        s => format!("{s:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(nodes: i64, cores: i64, size: i64, seconds: Option<f64>) -> ExperimentRow {
        ExperimentRow {
            nodes,
            cores,
            size,
            seconds,
            reason: seconds.is_none().then(|| "Unschedulable".to_owned()),
            error: seconds.is_none().then(|| "no node".to_owned()),
            ..ExperimentRow::default()
        }
    }

    #[test]
    fn speed_up_is_measured_against_the_fewest_threads_of_the_same_size() {
        let table = table(&[
            row(1, 1, 10, Some(8.0)),
            row(1, 1, 10, Some(10.0)),
            row(1, 1, 10, Some(90.0)),
            row(2, 1, 10, Some(5.0)),
            row(2, 2, 10, Some(2.5)),
            row(2, 2, 99, Some(7.0)),
        ]);
        let lines: Vec<_> = table
            .iter()
            .map(|row| (row.nodes, row.cores, row.speedup, row.efficiency))
            .collect();
        assert_eq!(
            lines,
            [
                (1, 1, Some(1.0), Some(1.0)),
                (2, 1, Some(2.0), Some(1.0)),
                (2, 2, Some(4.0), Some(1.0)),
                (2, 2, Some(1.0), Some(1.0)),
            ]
        );
        assert_eq!((table[0].seconds, table[0].runs), (Some(10.0), 3));
    }

    #[test]
    fn a_failed_base_gives_way_to_the_next_and_failures_keep_their_reason() {
        let table = table(&[
            row(1, 1, 10, None),
            row(1, 2, 10, Some(6.0)),
            row(2, 1, 10, Some(4.0)),
            row(4, 2, 10, Some(2.0)),
            row(4, 2, 10, None),
        ]);
        assert_eq!((table[0].failed, table[0].speedup), (1, None));
        assert_eq!(table[0].reason.as_deref(), Some("Unschedulable: no node"));
        assert_eq!(table[2].speedup, Some(1.5));
        assert_eq!((table[3].runs, table[3].failed), (1, 1));
        assert_eq!(
            (table[3].speedup, table[3].efficiency),
            (Some(3.0), Some(0.75))
        );
    }

    #[test]
    fn the_best_is_of_the_largest_size() {
        let rows = [
            row(1, 1, 10, Some(0.5)),
            row(1, 1, 20, Some(9.0)),
            row(3, 2, 20, Some(2.0)),
        ];
        assert_eq!(best(&table(&rows)).unwrap(), "3 × 2: 2.00 s, 4.50 times");
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
    }
}
