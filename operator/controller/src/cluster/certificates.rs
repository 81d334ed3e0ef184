//! The Secret of a cluster with TLS: made once, never renewed.

use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tracing::info;

use super::Seen;
use crate::api;
use crate::build::{self, Certificates};
use crate::context::Context;
use crate::error::Error;
use crate::names;

/// Years that certificates are good for. A cluster's end comes first: whoever
/// wants shorter ones brings a Secret of their own.
const YEARS: i16 = 10;

/// Makes the Secret if the cluster wants one of its own and has none. It is
/// looked for while the scheduler is not ready, which it cannot become without.
pub(super) async fn ensure(context: &Context, seen: &Seen) -> Result<(), Error> {
    let wants = seen
        .cluster
        .spec
        .tls_on()
        .is_some_and(|tls| tls.secret_name.is_none());
    if !wants || seen.scheduler_pods.iter().any(|pod| pod.is_ready()) {
        return Ok(());
    }
    let (client, namespace) = (&context.client, &seen.namespace);
    let name = names::tls_secret(&seen.name);
    if api::get::<Secret>(client, namespace, &name)
        .await?
        .is_some()
    {
        return Ok(());
    }
    let today = context.clock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let certificates =
        issue(&seen.name, namespace, today).map_err(|error| Error::Certificates {
            action: format!(
                "issue certificates for DaskCluster {namespace}/{}",
                seen.name
            ),
            source: error,
        })?;
    api::create::<Secret>(
        client,
        namespace,
        &build::secret(&seen.cluster, &certificates),
    )
    .await?;
    info!(namespace, name, "certificates issued");
    Ok(())
}

/// A new authority and a certificate signed by it. The authority's key is not
/// kept: it signs this one certificate and never again.
fn issue(
    cluster: &str,
    namespace: &str,
    today: jiff::civil::Date,
) -> Result<Certificates, rcgen::Error> {
    let dated = |mut params: CertificateParams, name: String| {
        params.distinguished_name.push(DnType::CommonName, name);
        let (month, day) = (today.month().unsigned_abs(), today.day().unsigned_abs());
        // From the first of the month, for clocks that go wrong; and not to a
        // 29th of February that the last year may not have.
        params.not_before = date_time_ymd(today.year().into(), month, 1);
        params.not_after = date_time_ymd((today.year() + YEARS).into(), month, day.min(28));
        params
    };
    let mut authority = dated(
        CertificateParams::new(Vec::new())?,
        format!("{cluster} authority"),
    );
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signing_key = KeyPair::generate()?;
    let root = authority.self_signed(&signing_key)?;
    let issuer = Issuer::new(authority, signing_key);

    let service = names::scheduler(cluster);
    let hosts = vec![
        service.clone(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
    ];
    let mut member = dated(CertificateParams::new(hosts)?, service);
    member.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    member.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    member.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = member.signed_by(&key, &issuer)?;
    Ok(Certificates {
        authority: root.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use oxidask_settings::{Config, tls::TlsFiles};

    use super::*;

    #[test]
    fn certificates_are_such_as_scheduler_and_workers_take() {
        let today = jiff::civil::date(2028, 2, 29);
        let issued = issue("a", "ns", today).unwrap();
        let files = TlsFiles {
            ca_file: Some(issued.authority),
            cert: Some(issued.certificate),
            key: Some(issued.key),
        };
        assert!(files.load(&Config::default()).unwrap().is_some());
    }

    #[test]
    fn longest_name_of_a_cluster_has_certificates() {
        // A common name has at most 64 characters, the longest Service 63.
        let issued = issue(&"a".repeat(53), "ns", jiff::civil::date(2026, 1, 1)).unwrap();
        assert!(issued.certificate.contains("BEGIN CERTIFICATE"));
    }
}
