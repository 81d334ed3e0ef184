//! A cluster's certificates: the Secret, and what pods need to use it.

use oxidask_operator_api::DaskCluster;
use serde_json::{Value, json};

use super::programs::{add_env, push};
use super::{metadata, owner};
use crate::labels::{self, Map};
use crate::names;

/// Where the Secret is mounted.
const FOLDER: &str = "/etc/oxidask/tls";
/// Name of the volume.
const NAME: &str = "oxidask-tls";

/// Keys of the Secret: the authority, the certificate, its key.
pub(crate) const KEYS: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// PEM texts of a cluster's authority and of the certificate that its members
/// and clients show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Certificates")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The Secret with a cluster's certificates.
///
/// # Panics
/// As [`owner`].
pub(crate) fn secret(cluster: &DaskCluster, certificates: &Certificates) -> Value {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let [authority, certificate, key] = KEYS;
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": metadata(
            &names::tls_secret(name),
            cluster.metadata.namespace.as_deref(),
            &labels::cluster(name),
            &Map::new(),
            owner(cluster),
        ),
        "stringData": {
            authority: certificates.authority,
            certificate: certificates.certificate,
            key: certificates.key,
        },
    })
}

/// Name of the Secret of a cluster that has TLS on.
pub(crate) fn secret_name(cluster: &DaskCluster) -> Option<String> {
    let tls = cluster.spec.tls_on()?;
    let own = || names::tls_secret(cluster.metadata.name.as_deref().unwrap_or_default());
    Some(tls.secret_name.clone().unwrap_or_else(own))
}

/// Makes every container of a pod speak TLS, by the variables of Dask's
/// configuration. Variables that the user set stay.
pub(super) fn secure(pod: &mut Value, secret: &str) {
    let file = |key: &str| format!("{FOLDER}/{key}");
    let [authority, certificate, key] = KEYS.map(file);
    let comm = "DASK_DISTRIBUTED__COMM__";
    let mut variables = vec![
        (format!("{comm}REQUIRE_ENCRYPTION"), "True".to_owned()),
        (format!("{comm}DEFAULT_SCHEME"), "tls".to_owned()),
        (format!("{comm}TLS__CA_FILE"), authority),
    ];
    for role in ["SCHEDULER", "WORKER", "CLIENT"] {
        variables.push((format!("{comm}TLS__{role}__CERT"), certificate.clone()));
        variables.push((format!("{comm}TLS__{role}__KEY"), key.clone()));
    }
    if let Some(containers) = pod["containers"].as_array_mut() {
        for container in containers {
            let mount = json!({"name": NAME, "mountPath": FOLDER, "readOnly": true});
            push(container, "volumeMounts", mount);
            for (name, value) in &variables {
                add_env(container, name, value);
            }
        }
    }
    let volume = json!({"name": NAME, "secret": {"secretName": secret}});
    push(pod, "volumes", volume);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_container_gets_the_files_and_the_variables_that_it_does_not_have() {
        let mut pod = json!({"containers": [
            {"name": "a", "env": [{"name": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "value": "/mine"}]},
            {"name": "b"},
        ]});
        secure(&mut pod, "c-tls");
        let env = |index: usize, name: &str| {
            let env = pod["containers"][index]["env"].as_array().unwrap();
            let found = env.iter().find(|item| item["name"] == name).unwrap();
            found["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(env(0, "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"), "/mine");
        assert_eq!(
            env(1, "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
            "/etc/oxidask/tls/ca.crt"
        );
        assert_eq!(
            env(1, "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY"),
            "/etc/oxidask/tls/tls.key"
        );
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "c-tls");
        assert_eq!(pod["containers"][1]["volumeMounts"][0]["readOnly"], true);
    }
}
