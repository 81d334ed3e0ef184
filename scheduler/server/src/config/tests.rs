//! Command lines and configurations in, settings or errors out.

use clap::Parser;
use oxidask_settings::{Sources, Treatment};

use super::*;

fn settings_of(
    flags: &[&str],
    variables: &[(&str, &str)],
) -> Result<(Settings, Vec<String>), String> {
    let args = Args::try_parse_from(std::iter::once(&"dask-scheduler").chain(flags)).unwrap();
    let environment = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let sources = Sources {
        paths: Vec::new(),
        environment,
    };
    settings(&args, &Config::load(&sources).unwrap()).map_err(|error| format!("{error:#}"))
}

fn shown(settings: &Settings) -> Vec<String> {
    settings.listen.iter().map(ToString::to_string).collect()
}

#[test]
fn without_flags_and_configuration_all_is_as_in_stock() {
    let (settings, notes) = settings_of(&[], &[]).unwrap();
    assert_eq!(shown(&settings), ["tcp://:8786"]);
    assert_eq!(settings.dashboard, Some((String::new(), 8787)));
    let core = core::Config {
        transition_log_length: 1000,
        ..core::Config::default()
    };
    assert_eq!(settings.core, core);
    assert_eq!(settings.idle_timeout, None);
    assert_eq!(settings.control, None);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn flags_win_over_the_configuration() {
    let variables = [
        ("DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT", "1 hour"),
        ("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", "['a.b']"),
        ("DASK_DISTRIBUTED__SCHEDULER__PRELOAD_ARGV", "['--x']"),
    ];
    let (settings, _) = settings_of(&[], &variables).unwrap();
    assert_eq!(settings.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(
        settings.preload,
        [("a.b".to_owned(), vec!["--x".to_owned()])]
    );
    let flags = [
        "--idle-timeout",
        "5s",
        "--preload",
        "c.py",
        "--no-dashboard",
        "--control-address",
        ":0",
    ];
    let (settings, _) = settings_of(&flags, &variables).unwrap();
    assert_eq!(settings.idle_timeout, Some(Duration::from_secs(5)));
    assert_eq!(settings.preload, [("c.py".to_owned(), Vec::new())]);
    assert_eq!(settings.dashboard, None);
    assert_eq!(settings.control, Some((String::new(), 0)));
    let (settings, _) = settings_of(&["--idle-timeout", "0"], &variables).unwrap();
    assert_eq!(settings.idle_timeout, None);
}

#[test]
fn the_state_machine_is_told_what_the_configuration_says() {
    let (settings, _) = settings_of(
        &[],
        &[
            ("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "None"),
            ("DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION", "inf"),
            ("DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH", "10 MB"),
            (
                "DASK_DISTRIBUTED__SCHEDULER__DEFAULT_TASK_DURATIONS",
                "{'f_g': '1 minute'}",
            ),
            ("DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH", "7"),
            (
                "DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL",
                "100ms",
            ),
        ],
    )
    .unwrap();
    assert_eq!(settings.core.worker_ttl, None);
    assert_eq!(settings.core.worker_saturation, f64::INFINITY);
    assert_eq!(settings.core.bandwidth, 10e6);
    assert!(
        settings
            .core
            .default_task_durations
            .contains(&("f_g".to_owned(), 60.0))
    );
    assert_eq!(settings.core.default_task_durations.len(), 5);
    assert_eq!(settings.extensions.events_per_topic, 7);
    assert_eq!(
        settings.extensions.lease_validation_interval,
        Duration::from_millis(100)
    );
}

#[test]
fn what_has_no_effect_is_named_once() {
    let (_, notes) = settings_of(
        &["--show"],
        &[
            ("DASK_DISTRIBUTED__COMM__COMPRESSION", "lz4"),
            ("DASK_DISTRIBUTED__COMM__SHARD", "1MiB"),
            ("DASK_DISTRIBUTED__WORKER__MEMORY__SPILL", "0.5"),
            ("DASK_TCP_TIMEOUT", "30s"),
        ],
    )
    .unwrap();
    assert_eq!(
        notes,
        [
            "--show and --no-show have no effect (deprecated in Dask)",
            "configuration tcp-timeout is now called distributed.comm.timeouts.tcp",
            "configuration without effect here: distributed.comm.compression, distributed.comm.shard",
        ]
    );
}

#[test]
fn what_would_be_unsafe_is_an_error() {
    let require = ("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "True");
    for (flags, variables, part) in [
        (
            &[][..],
            &[require][..],
            "cannot listen on tls://:8786 without certificates",
        ),
        (
            &["--protocol", "tcp"],
            &[require],
            "refusing to listen on tcp://:8786",
        ),
        (&["--host", "tls://"], &[], "without certificates"),
        (&["--tls-cert", "/no/such.pem"], &[], "without certificates"),
        (
            &["--tls-cert", "/no/such.pem", "--tls-ca-file", "/no/ca.pem"],
            &[],
            "/no/ca.pem",
        ),
        (
            &[],
            &[("DASK_DISTRIBUTED__COMM__TLS__CIPHERS", "HIGH")],
            "comm.tls.ciphers",
        ),
        (
            &[],
            &[("DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__CERT", "x.pem")],
            "no TLS",
        ),
        (
            &[],
            &[("DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME", "ucx")],
            "tcp and tls",
        ),
        (
            &[],
            &[("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "soon")],
            "a duration such as",
        ),
        (&["--idle-timeout", "soon"], &[], "no duration"),
        (&["--control-address", "x:y"], &[], "--control-address"),
        (&["--jupyter"], &[], "jupyter server"),
    ] {
        let error = settings_of(flags, variables).unwrap_err();
        assert!(error.contains(part), "{flags:?} {variables:?}: {error}");
    }
}

#[test]
fn docs_configuration_lists_the_keys_that_are_honoured() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("\n## Scheduler\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let section = section.split("\n### ").next().unwrap();
    let rows: Vec<(String, String)> = section
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('`');
            let key = cells.next()?;
            Some((format!("distributed.{key}"), cells.nth(1)?.to_owned()))
        })
        .collect();
    let honoured: Vec<(String, String)> = KEYS
        .iter()
        .filter(|row| row.treatment == Treatment::Honoured)
        .map(|row| (row.key.to_owned(), row.default.to_owned()))
        .collect();
    assert_eq!(rows, honoured);
}
