//! TLS as Dask means it: a cluster has its own authority, both sides show a certificate, host names do not count.

mod der;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;
use std::time::SystemTime;

use oxidask_protocol::comm::Tls;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use crate::{Config, ConfigError, Tree};
use der::Certificate;
use verify::ClusterVerifier;

/// Which certificate a program shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `distributed.comm.tls.scheduler`.
    Scheduler,
    /// `distributed.comm.tls.worker`.
    Worker,
    /// `distributed.comm.tls.client`.
    Client,
}

/// Where certificates are; a text with line breaks is the PEM text itself, as `Security` objects hold it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsFiles {
    /// The authority.
    pub ca_file: Option<String>,
    /// Our certificate, with those between it and the authority; it may hold the key too.
    pub cert: Option<String>,
    /// Our key.
    pub key: Option<String>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {file} for TLS")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something that cannot be used.
    #[error("{file} cannot be used for TLS: {reason}")]
    Unusable {
        /// The file.
        file: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The configuration is malformed.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl TlsFiles {
    /// The files that the configuration names for a role.
    ///
    /// # Errors
    /// If a value is no text.
    pub fn of_config(config: &Config, role: Role) -> Result<Self, ConfigError> {
        let role = match role {
            Role::Scheduler => "scheduler",
            Role::Worker => "worker",
            Role::Client => "client",
        };
        let text = |key: &str| {
            config
                .text(&format!("distributed.comm.tls.{key}"))
                .map(|text| text.map(str::to_owned))
        };
        Ok(Self {
            ca_file: text("ca-file")?,
            cert: text(&format!("{role}.cert"))?,
            key: text(&format!("{role}.key"))?,
        })
    }

    /// Whether authority or certificate are missing, so that TLS cannot be spoken.
    pub fn is_empty(&self) -> bool {
        self.ca_file.is_none() || self.cert.is_none()
    }

    /// Reads the files; `None` if authority or certificate are missing. TLS versions are those of the configuration.
    ///
    /// # Errors
    /// If a file cannot be read or used.
    pub fn load(&self, config: &Config) -> Result<Option<Tls>, TlsError> {
        let (Some(ca_file), Some(cert_file)) = (&self.ca_file, &self.cert) else {
            return Ok(None);
        };
        let provider = Arc::new(default_provider());
        let versions = versions(config)?;
        let authorities = certificates(ca_file)?;
        let verifier = ClusterVerifier::new(authorities, shown(ca_file), Arc::clone(&provider))?;
        let own = Arc::new(SingleCertAndKey::from(self.own(cert_file, &provider)?));
        let unusable = |error: rustls::Error| TlsError::Unusable {
            file: shown(cert_file).to_owned(),
            reason: error.to_string(),
        };
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<ClusterVerifier>::clone(&verifier))
            .with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(&own));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(own);
        Ok(Some(Tls {
            client: Arc::new(client),
            server: Arc::new(server),
        }))
    }

    fn own(&self, cert_file: &str, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(cert_file)?;
        let key_file = self.key.as_deref().unwrap_or(cert_file);
        let key = private_key(key_file)?;
        let unusable = |file: &str, reason: String| TlsError::Unusable {
            file: shown(file).to_owned(),
            reason,
        };
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| {
                unusable(
                    key_file,
                    format!(
                        "{error}; supported are RSA keys from 2048 bits, P-256, P-384 and Ed25519"
                    ),
                )
            })?;
        let own = Certificate::parse(&chain[0])
            .map_err(|error| unusable(cert_file, error.to_string()))?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        if own.not_after < now {
            return Err(unusable(
                cert_file,
                format!(
                    "the certificate expired {} days ago; reissue it",
                    (now - own.not_after) / 86_400
                ),
            ));
        }
        let same_key = key
            .public_key()
            .is_none_or(|public| public.as_ref() == own.public_key_info);
        if !same_key {
            return Err(unusable(
                cert_file,
                format!(
                    "the certificate does not belong to the key in {}",
                    shown(key_file)
                ),
            ));
        }
        Ok(CertifiedKey::new(chain, key))
    }
}

fn versions(config: &Config) -> Result<Vec<&'static SupportedProtocolVersion>, ConfigError> {
    let number = |key: &str, default: f64| -> Result<f64, ConfigError> {
        let key = format!("distributed.comm.tls.{key}");
        match config.get(&key) {
            None => Ok(default),
            Some(Tree::Float(version)) if [1.2, 1.3].contains(version) => Ok(*version),
            Some(other) => Err(ConfigError::Value {
                key,
                value: other.to_string(),
                expected: "1.2 or 1.3",
            }),
        }
    };
    let (min, max) = (number("min-version", 1.2)?, number("max-version", 1.3)?);
    let versions: Vec<_> = [
        (1.3, &rustls::version::TLS13),
        (1.2, &rustls::version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| (min..=max).contains(version))
    .map(|(_, version)| version)
    .collect();
    if versions.is_empty() {
        return Err(ConfigError::Value {
            key: "distributed.comm.tls.max-version".to_owned(),
            value: max.to_string(),
            expected: "no smaller than min-version",
        });
    }
    Ok(versions)
}

/// The name of a file in messages; PEM texts are not shown.
fn shown(file: &str) -> &str {
    if file.contains('\n') {
        "the PEM text of the configuration"
    } else {
        file
    }
}

fn read(file: &str) -> Result<Vec<u8>, TlsError> {
    if file.contains('\n') {
        return Ok(file.as_bytes().to_vec());
    }
    std::fs::read(file).map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let unusable = |reason: String| TlsError::Unusable {
        file: shown(file).to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(
            "it holds no certificate in PEM format (BEGIN CERTIFICATE)".to_owned(),
        ));
    }
    Ok(certificates)
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(file)?;
    let text = String::from_utf8_lossy(&pem);
    let reason = if text.contains("ENCRYPTED") {
        "the key is encrypted, and there is nobody to ask for its password; decrypt it with `openssl pkey`".to_owned()
    } else {
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => return Ok(key),
            Err(_) if !text.contains("PRIVATE KEY") => {
                "it holds no key in PEM format (BEGIN PRIVATE KEY); give the key's file, or append the key to the certificate".to_owned()
            }
            Err(error) => error.to_string(),
        }
    };
    Err(TlsError::Unusable {
        file: shown(file).to_owned(),
        reason,
    })
}
