//! Certificates as the `openssl` command makes them, between two ends of our own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::comm::{CommError, Tls, accept, connect};
use oxidask_protocol::frame::Limits;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::TlsFiles;
use crate::{Config, Tree};

/// A folder with keys and certificates.
struct Authority {
    folder: TempDir,
}

const NEW_EC_KEY: &str = "ecparam -name prime256v1 -genkey -noout";

impl Authority {
    /// A folder with the authority `ca.pem`.
    fn new() -> Self {
        let authority = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        authority.openssl(&format!("{NEW_EC_KEY} -out ca.key"));
        authority.openssl("req -x509 -new -key ca.key -subj /CN=authority -days 2 -out ca.pem");
        authority
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .output()
            .expect("the openssl command is there");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// A certificate `NAME.pem` with its key `NAME.key`, signed by the authority; version 1 without extensions.
    fn issue(&self, name: &str, new_key: &str, extensions: &str) {
        let (command, options) = new_key.split_once(' ').unwrap();
        self.openssl(&format!("{command} -out {name}.key {options}"));
        self.openssl(&format!(
            "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
        let extfile = if extensions.is_empty() {
            String::new()
        } else {
            self.write("ext", extensions);
            " -extfile ext".to_owned()
        };
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1{extfile} -out {name}.pem"
        ));
    }

    fn path(&self, name: &str) -> Option<String> {
        Some(self.folder.path().join(name).display().to_string())
    }

    fn load(&self, ca: &str, cert: &str, key: Option<&str>) -> Result<Tls, String> {
        let files = TlsFiles {
            ca_file: self.path(ca),
            cert: self.path(cert),
            key: key.and_then(|key| self.path(key)),
        };
        let config = Config::default();
        files
            .load(&config)
            .map(Option::unwrap)
            .map_err(|error| error.to_string())
    }
}

/// Lets the two connect; gives what each side says.
async fn meet(server: Tls, client: Tls) -> (Result<(), CommError>, Result<(), CommError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address {
        scheme: Scheme::Tls,
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let limits = Limits::default();
    let timeout = Duration::from_secs(20);
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, Some(&server), limits, timeout)
            .await
            .map(drop)
    };
    let connecting = async {
        connect(&address, Some(&client), limits, timeout)
            .await
            .map(drop)
    };
    tokio::join!(accepting, connecting)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

const V3: &str = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:elsewhere.example\n";

#[tokio::test]
async fn certificates_of_every_kind_meet() {
    let authority = Authority::new();
    authority.issue("ec", NEW_EC_KEY, V3);
    authority.issue("p384", "ecparam -name secp384r1 -genkey -noout", V3);
    authority.issue("rsa", "genrsa -traditional 2048", V3);
    authority.issue(
        "pkcs8",
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        V3,
    );
    authority.issue("version1", NEW_EC_KEY, "");
    authority.issue("rsa1", "genrsa 2048", "");
    let both = authority.read("ec.pem") + &authority.read("ec.key");
    authority.write("both.pem", &both);
    let load = |name: &str| {
        let key = format!("{name}.key");
        authority
            .load("ca.pem", &format!("{name}.pem"), Some(&key))
            .unwrap()
    };
    let kinds = ["ec", "p384", "rsa", "pkcs8", "version1", "rsa1"];
    for (server, client) in kinds.iter().zip(kinds.iter().cycle().skip(4)) {
        let (accepted, connected) = meet(load(server), load(client)).await;
        assert!(accepted.is_ok(), "{server} <- {client}: {accepted:?}");
        assert!(connected.is_ok(), "{server} <- {client}: {connected:?}");
    }
    let combined = authority.load("ca.pem", "both.pem", None).unwrap();
    let (accepted, connected) = meet(combined, load("rsa")).await;
    assert!(accepted.is_ok() && connected.is_ok());
}

#[tokio::test]
async fn one_self_signed_certificate_serves_as_authority_and_peer() {
    let authority = Authority::new();
    for own in [
        "basicConstraints=critical,CA:TRUE",
        "basicConstraints=CA:FALSE",
    ] {
        authority.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout self.key -subj /CN=self -days 2 -addext {own} -out self.pem"
        ));
        let load = || {
            authority
                .load("self.pem", "self.pem", Some("self.key"))
                .unwrap()
        };
        let (accepted, connected) = meet(load(), load()).await;
        assert!(accepted.is_ok(), "{own}: {accepted:?}");
        assert!(connected.is_ok(), "{own}: {connected:?}");
    }
}

#[tokio::test]
async fn strangers_are_refused() {
    let ours = Authority::new();
    ours.issue("server", NEW_EC_KEY, V3);
    let theirs = Authority::new();
    theirs.write("ca.pem", &ours.read("ca.pem"));
    // Same name of the authority, another key.
    theirs.openssl(&format!("{NEW_EC_KEY} -out ca.key"));
    theirs.openssl("req -x509 -new -key ca.key -subj /CN=authority -days 2 -out false.pem");
    for (name, extensions) in [("version3", V3), ("version1", "")] {
        theirs.openssl(&format!("{NEW_EC_KEY} -out {name}.key"));
        theirs.openssl(&format!(
            "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
        theirs.write("ext", extensions);
        let extfile = if extensions.is_empty() {
            ""
        } else {
            " -extfile ext"
        };
        theirs.openssl(&format!(
            "x509 -req -in {name}.csr -CA false.pem -CAkey ca.key -CAcreateserial -days 1{extfile} -out {name}.pem"
        ));
        let server = ours
            .load("ca.pem", "server.pem", Some("server.key"))
            .unwrap();
        let client = theirs
            .load(
                "ca.pem",
                &format!("{name}.pem"),
                Some(&format!("{name}.key")),
            )
            .unwrap();
        let (accepted, _) = meet(server.clone(), client.clone()).await;
        let error = chain(&accepted.unwrap_err());
        assert!(error.contains("certificate"), "{name}: {error}");
        let (_, connected) = meet(client, server).await;
        let error = chain(&connected.unwrap_err());
        assert!(error.contains("certificate"), "{name}: {error}");
        if name == "version1" {
            assert!(error.contains("reissue it as version 3"), "{error}");
        }
    }
}

#[tokio::test]
async fn extensions_that_restrict_a_certificate_hold() {
    let authority = Authority::new();
    authority.issue("server", NEW_EC_KEY, V3);
    for extensions in [
        "extendedKeyUsage=serverAuth",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign",
        "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=serverAuth",
    ] {
        authority.issue("client", NEW_EC_KEY, extensions);
        let server = authority
            .load("ca.pem", "server.pem", Some("server.key"))
            .unwrap();
        let client = authority
            .load("ca.pem", "client.pem", Some("client.key"))
            .unwrap();
        let (accepted, _) = meet(server, client).await;
        assert!(accepted.is_err(), "{extensions}");
    }
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let authority = Authority::new();
    authority.issue("server", NEW_EC_KEY, V3);
    let server = authority
        .load("ca.pem", "server.pem", Some("server.key"))
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.read("ca.pem");
    roots.add_parsable_certificates(super::certificates(&pem).unwrap());
    let provider = std::sync::Arc::new(super::default_provider());
    let anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(
            super::ClusterVerifier::new(
                super::certificates(&pem).unwrap(),
                "ca.pem",
                std::sync::Arc::new(super::default_provider()),
            )
            .unwrap(),
        )
        .with_no_client_auth();
    let client = Tls {
        client: std::sync::Arc::new(anonymous),
        server: std::sync::Arc::clone(&server.server),
    };
    let (accepted, _) = meet(server, client).await;
    assert!(accepted.is_err());
}

#[test]
fn unusable_files_are_named_with_what_to_do() {
    let authority = Authority::new();
    authority.issue("a", NEW_EC_KEY, V3);
    authority.issue("b", NEW_EC_KEY, V3);
    authority.openssl("pkey -in a.key -aes128 -passout pass:x -out locked.key");
    authority.openssl("genrsa -out small.key 1024");
    authority.write("text.pem", "hello\n");
    authority.openssl("req -new -key a.key -subj /CN=old -out old.csr");
    authority.openssl(
        "x509 -req -in old.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days -1 -out old.pem",
    );
    for (ca, cert, key, part) in [
        ("none.pem", "a.pem", Some("a.key"), "failed to read"),
        (
            "text.pem",
            "a.pem",
            Some("a.key"),
            "no certificate in PEM format",
        ),
        (
            "ca.pem",
            "a.pem",
            Some("b.key"),
            "does not belong to the key",
        ),
        ("ca.pem", "a.pem", Some("locked.key"), "openssl pkey"),
        (
            "ca.pem",
            "a.pem",
            Some("small.key"),
            "RSA keys from 2048 bits",
        ),
        ("ca.pem", "a.pem", None, "append the key to the certificate"),
        ("ca.pem", "old.pem", Some("a.key"), "expired"),
    ] {
        let error = authority.load(ca, cert, key).unwrap_err();
        assert!(error.contains(part), "{error}");
        let named = [ca, cert, key.unwrap_or(cert)]
            .iter()
            .any(|name| error.contains(&Path::new(name).display().to_string()));
        assert!(named, "{error}");
    }
}

#[tokio::test]
async fn versions_are_those_of_the_configuration() {
    let authority = Authority::new();
    authority.issue("a", NEW_EC_KEY, V3);
    let load = |yaml: &str| {
        let files = TlsFiles {
            ca_file: authority.path("ca.pem"),
            cert: authority.path("a.pem"),
            key: authority.path("a.key"),
        };
        let config = Config::from(Tree::parse_yaml(yaml).unwrap());
        files
            .load(&config)
            .map(Option::unwrap)
            .map_err(|error| error.to_string())
    };
    let old = "distributed: {comm: {tls: {max-version: 1.2}}}";
    let new = "distributed: {comm: {tls: {min-version: 1.3}}}";
    let (accepted, connected) = meet(load(old).unwrap(), load(old).unwrap()).await;
    assert!(accepted.is_ok() && connected.is_ok());
    let (accepted, connected) = meet(load(new).unwrap(), load(old).unwrap()).await;
    assert!(accepted.is_err() && connected.is_err());
    let error = load("distributed: {comm: {tls: {min-version: 1.1}}}").unwrap_err();
    assert!(
        error.contains("min-version is 1.1, but should be 1.2 or 1.3"),
        "{error}"
    );
    assert!(load("distributed: {comm: {tls: {min-version: 1.3, max-version: 1.2}}}").is_err());
}

#[test]
fn pem_texts_stand_in_for_files_and_are_not_shown() {
    let authority = Authority::new();
    authority.issue("a", NEW_EC_KEY, V3);
    let files = TlsFiles {
        ca_file: Some(authority.read("ca.pem")),
        cert: Some(authority.read("a.pem")),
        key: Some(authority.read("a.key")),
    };
    assert!(files.load(&Config::default()).unwrap().is_some());
    let mixed = TlsFiles {
        key: Some("-----BEGIN\nsecret".to_owned()),
        ..files
    };
    let error = mixed.load(&Config::default()).unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}
