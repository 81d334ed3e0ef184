//! Names of child objects, and which cluster names can have them.

/// The suffix of a scheduler's Deployment and Service.
const SCHEDULER_SUFFIX: &str = "-scheduler";

/// Longest name of a cluster: its scheduler's Service is a DNS label, which
/// has at most 63 characters.
pub const MAX_CLUSTER_NAME: usize = 63 - SCHEDULER_SUFFIX.len();

/// Name of the scheduler's Deployment and Service.
pub fn scheduler(cluster: &str) -> String {
    format!("{cluster}{SCHEDULER_SUFFIX}")
}

/// Name of the group that belongs to the cluster itself.
pub fn default_group(cluster: &str) -> String {
    format!("{cluster}-default")
}

/// Name of a worker's Deployment. `id`: ten hexadecimal digits.
pub fn worker(group: &str, id: &str) -> String {
    format!("{group}-worker-{id}")
}

/// Name of the Secret with a cluster's certificates.
pub fn tls_secret(cluster: &str) -> String {
    format!("{cluster}-tls")
}

/// Name of one of a cluster's NetworkPolicies.
pub fn network_policy(cluster: &str, part: &str) -> String {
    format!("{cluster}-{part}")
}

/// Name of a job's runner pod.
pub fn job_runner(job: &str) -> String {
    format!("{job}-runner")
}

/// Longest name of an experiment: names and labels made from it have at most 63
/// characters.
pub const MAX_EXPERIMENT_NAME: usize = 40;

/// Name of the worker group of one number of nodes and cores.
pub fn experiment_group(experiment: &str, nodes: i64, cores: i64) -> String {
    format!("{experiment}-n{nodes}-c{cores}")
}

/// Name of the runner pod of a cell. Attempts count from 1.
pub fn cell_runner(experiment: &str, cell: i64, attempt: i64) -> String {
    format!("{experiment}-cell-{cell}-{attempt}")
}

/// Name of the pod that draws an experiment's plots.
pub fn report_runner(experiment: &str) -> String {
    format!("{experiment}-report")
}

/// Name of the ConfigMap of an experiment.
pub fn experiment_results(experiment: &str) -> String {
    format!("{experiment}-results")
}

/// What is wrong with an experiment's name, in a sentence for its owner.
///
/// # Errors
/// As [`validate_cluster`], with [`MAX_EXPERIMENT_NAME`].
pub fn validate_experiment(name: &str) -> Result<(), String> {
    if name.len() > MAX_EXPERIMENT_NAME {
        return Err(format!(
            "the name {name} has {} characters, a ScalingExperiment's may have {MAX_EXPERIMENT_NAME}: create it with a shorter one",
            name.len()
        ));
    }
    validate_cluster(name)
}

/// What is wrong with a cluster's name, in a sentence for its owner.
///
/// # Errors
/// The name has a character that a DNS label cannot have, or more than
/// [`MAX_CLUSTER_NAME`] of them.
pub fn validate_cluster(name: &str) -> Result<(), String> {
    if name.len() > MAX_CLUSTER_NAME {
        return Err(format!(
            "the name {name} has {} characters, a DaskCluster's may have {MAX_CLUSTER_NAME}: create it with a shorter one",
            name.len()
        ));
    }
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inside = name.chars().all(|c| alphanumeric(c) || c == '-');
    let ends = name.starts_with(alphanumeric) && name.ends_with(alphanumeric);
    if !(inside && ends) {
        return Err(format!(
            "the name {name} must consist of lower-case letters, digits and '-', and start and end with a letter or digit: create it with such a name"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_53_characters_is_the_longest() {
        assert_eq!(validate_cluster(&"a".repeat(53)), Ok(()));
        assert!(
            validate_cluster(&"a".repeat(54))
                .unwrap_err()
                .contains("54")
        );
    }

    #[test]
    fn the_longest_experiment_has_children_with_valid_labels() {
        let name = "a".repeat(MAX_EXPERIMENT_NAME);
        assert_eq!(validate_experiment(&name), Ok(()));
        assert!(validate_experiment(&format!("{name}a")).is_err());
        assert!(experiment_group(&name, 1000, 1024).len() <= 63);
    }

    #[test]
    fn dots_capitals_and_outer_dashes_are_refused() {
        for name in ["a.b", "A", "-a", "a-", "a_b", "ä"] {
            assert!(validate_cluster(name).is_err(), "{name}");
        }
        for name in ["a", "simple", "a-1", "1a"] {
            assert_eq!(validate_cluster(name), Ok(()), "{name}");
        }
    }
}
