//! How to speak TLS to a scheduler: by its cluster's own certificates.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use oxidask_protocol::comm::Tls;
use oxidask_settings::Config;
use oxidask_settings::tls::TlsFiles;
use tokio::time::Instant;

use super::Endpoint;
use crate::build::TLS_KEYS;

/// How long certificates are used before they are read again.
const REMEMBER: Duration = Duration::from_secs(600);

/// Reads the Secrets of clusters, and remembers them for a while.
pub(super) struct Certificates {
    client: Option<Client>,
    /// By pod of a scheduler.
    known: Mutex<HashMap<String, (Tls, Instant)>>,
}

impl Certificates {
    pub(super) fn new(client: Option<Client>) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// What is needed to connect, or `None` for a scheduler without TLS.
    pub(super) async fn of(&self, at: &Endpoint) -> Result<Option<Tls>, String> {
        let Some((namespace, name)) = &at.secret else {
            return Ok(None);
        };
        if let Some(tls) = self.remembered(&at.pod) {
            return Ok(Some(tls));
        }
        let client = self.client.clone().ok_or("no Secret can be read")?;
        let secret = Api::<Secret>::namespaced(client, namespace)
            .get(name)
            .await
            .map_err(|error| format!("failed to read Secret {namespace}/{name}: {error}"))?;
        let text = |key: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            let text = value.and_then(|value| String::from_utf8(value.0.clone()).ok());
            text.ok_or_else(|| format!("Secret {namespace}/{name} has no PEM text {key}"))
        };
        let [authority, certificate, key] = TLS_KEYS;
        let files = TlsFiles {
            ca_file: Some(text(authority)?),
            cert: Some(text(certificate)?),
            key: Some(text(key)?),
        };
        let tls = files
            .load(&Config::default())
            .map_err(|error| format!("Secret {namespace}/{name}: {error}"))?
            .ok_or("a certificate is missing")?;
        let mut known = self.known.lock().expect("no holder of this lock panics");
        known.retain(|_, (_, since)| since.elapsed() < REMEMBER);
        known.insert(at.pod.clone(), (tls.clone(), Instant::now()));
        Ok(Some(tls))
    }

    fn remembered(&self, pod: &str) -> Option<Tls> {
        let known = self.known.lock().expect("no holder of this lock panics");
        let (tls, since) = known.get(pod)?;
        (since.elapsed() < REMEMBER).then(|| tls.clone())
    }
}
