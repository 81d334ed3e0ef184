//! The metrics that every Prometheus client has of its own process, read from `/proc/self`.

use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

/// Clock ticks in a second in `/proc`, on all Linux systems.
const TICKS: f64 = 100.0;

/// Bytes of a page.
const PAGE: f64 = 4096.0;

/// The families; without those that the system does not tell.
pub(super) fn families() -> Vec<MetricFamily> {
    let mut families = Vec::new();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the name, may hold anything; the others follow its last parenthesis, the state being the third.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied();
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = (user + system) / TICKS;
        families.push(counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            seconds,
        ));
    }
    if let (Some(virtual_bytes), Some(pages)) = (field(23), field(24)) {
        families.push(gauge(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            virtual_bytes,
        ));
        families.push(gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            pages * PAGE,
        ));
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        families.push(gauge(
            "process_open_fds",
            "Number of open file descriptors.",
            descriptors.count() as f64,
        ));
    }
    families
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    family(name, help, MetricType::GAUGE, metric)
}

fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, metric)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let families = super::families();
        let value = |name: &str| {
            let family = families
                .iter()
                .find(|family| family.name() == name)
                .unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert_eq!(families.len(), 4);
        let resident = value("process_resident_memory_bytes");
        assert!(resident > 1e6 && resident < value("process_virtual_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
    }
}
