//! Whether the certificate of a peer comes from the cluster's own authority.
//!
//! As in stock Dask, the chain must lead to the configured authority and host names are not checked. What OpenSSL
//! accepts and webpki refuses is looked at here: certificates of X.509 version 1, which `openssl x509 -req` makes
//! unless it is told otherwise, and authorities that sign for themselves (`openssl req -x509`). Both are taken only
//! if the authority itself signed them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::TlsError;
use super::der::{Certificate, first_key_usage};

/// Accepts peers whose certificate the cluster's authority signed.
#[derive(Debug)]
pub(super) struct ClusterVerifier {
    roots: RootCertStore,
    /// The authority's certificates, DER.
    authorities: Vec<CertificateDer<'static>>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClusterVerifier {
    pub(super) fn new(
        authorities: Vec<CertificateDer<'static>>,
        file: &str,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let unusable = |reason: String| TlsError::Unusable {
            file: file.to_owned(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots
                .add(authority.clone())
                .map_err(|error| unusable(error.to_string()))?;
        }
        let algorithms = provider.signature_verification_algorithms;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider)
                .build()
                .map_err(|error| unusable(error.to_string()))?;
        Ok(Arc::new(Self {
            roots,
            authorities,
            clients,
            algorithms,
        }))
    }

    /// Takes what the authority signed directly, without extensions that would restrict its use.
    fn signed_by_authority(&self, peer: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let peer = Certificate::parse(peer).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < peer.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > peer.not_after {
            return Err(CertificateError::Expired.into());
        }
        if !may_identify_a_peer(&peer) {
            return Err(refused(
                "it is no plain certificate of a peer; reissue it as X.509 version 3, e.g. `openssl x509 -req -extfile v3.ext` with `basicConstraints=CA:FALSE` in v3.ext",
            ));
        }
        for authority in &self.authorities {
            let Ok(authority) = Certificate::parse(authority) else {
                continue;
            };
            let signed = authority.subject == peer.issuer
                && self.algorithms.all.iter().any(|algorithm| {
                    algorithm.public_key_alg_id().as_ref() == authority.public_key_algorithm
                        && algorithm.signature_alg_id().as_ref() == peer.signature_algorithm
                        && algorithm
                            .verify_signature(authority.public_key, peer.signed, peer.signature)
                            .is_ok()
                });
            if signed {
                return Ok(());
            }
        }
        if peer.version == 1 {
            return Err(refused(
                "it is of X.509 version 1 and not signed by the configured authority itself; reissue it as version 3, e.g. `openssl x509 -req -extfile v3.ext` with `basicConstraints=CA:FALSE` in v3.ext",
            ));
        }
        Err(CertificateError::UnknownIssuer.into())
    }

    /// Whether webpki cannot judge a certificate that OpenSSL can.
    fn beyond_webpki(peer: &CertificateDer<'_>) -> bool {
        Certificate::parse(peer).is_ok_and(|peer| peer.version == 1 || is_authority(&peer))
    }

    fn check_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let peer = Certificate::parse(peer).map_err(|_| CertificateError::BadEncoding)?;
        let valid = self
            .algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| *algorithms)
            .any(|algorithm| {
                algorithm.public_key_alg_id().as_ref() == peer.public_key_algorithm
                    && algorithm
                        .verify_signature(peer.public_key, message, signed.signature())
                        .is_ok()
            });
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }
}

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const DIGITAL_SIGNATURE: u8 = 0x80;

/// Whether the certificate says of itself that it is an authority's.
fn is_authority(certificate: &Certificate<'_>) -> bool {
    // basicConstraints is a sequence that begins with a true boolean for authorities.
    certificate.extensions().is_ok_and(|extensions| {
        extensions.iter().any(|e| {
            e.id == BASIC_CONSTRAINTS && matches!(e.value, [0x30, _, 0x01, 0x01, 0xff, ..])
        })
    })
}

/// Whether nothing in the extensions speaks against use as a TLS peer.
fn may_identify_a_peer(certificate: &Certificate<'_>) -> bool {
    let Ok(extensions) = certificate.extensions() else {
        return false;
    };
    extensions.iter().all(|extension| match extension.id {
        KEY_USAGE => {
            first_key_usage(extension.value).is_some_and(|usage| usage & DIGITAL_SIGNATURE != 0)
        }
        SUBJECT_ALT_NAME | BASIC_CONSTRAINTS => true,
        NAME_CONSTRAINTS | EXTENDED_KEY_USAGE => false,
        _ => !extension.critical,
    })
}

fn refused(reason: &'static str) -> Error {
    #[derive(Debug)]
    struct Refused(&'static str);
    impl std::fmt::Display for Refused {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "the peer's certificate cannot be used: {}", self.0)
        }
    }
    impl std::error::Error for Refused {}
    CertificateError::Other(OtherError(Arc::new(Refused(reason)))).into()
}

impl ServerCertVerifier for ClusterVerifier {
    fn verify_server_cert(
        &self,
        peer: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if Self::beyond_webpki(peer) {
            self.signed_by_authority(peer, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(peer)?,
                &self.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if Self::beyond_webpki(peer) {
            return self.check_signature(message, peer, signed);
        }
        verify_tls12_signature(message, peer, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if Self::beyond_webpki(peer) {
            return self.check_signature(message, peer, signed);
        }
        verify_tls13_signature(message, peer, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ClusterVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        peer: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if Self::beyond_webpki(peer) {
            self.signed_by_authority(peer, now)?;
            return Ok(ClientCertVerified::assertion());
        }
        self.clients.verify_client_cert(peer, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, peer, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        peer: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, peer, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
