//! The real program for tests, and peers of it that do as they are told.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use oxidask_control::v1::control_client::ControlClient;
use oxidask_protocol::Value;
use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::comm::{Comm, Tls, connect};
use oxidask_protocol::frame::Limits;
use oxidask_protocol::message::{decode_batch, decode_one, encode_one};
use oxidask_settings::Config;
use oxidask_settings::tls::TlsFiles;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

const SOON: Duration = Duration::from_secs(20);

/// A scheduler in a process of its own, which ends with this.
pub(crate) struct Scheduler {
    pub(crate) process: Child,
    pub(crate) address: Address,
    pub(crate) control_port: Option<u16>,
    _folder: TempDir,
}

impl Scheduler {
    /// With the control API on a free port.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let flags = [&["--control-address", "127.0.0.1:0"], flags].concat();
        Self::start_plain(&flags, &[]).await
    }

    /// The same with the certificates of an authority.
    pub(crate) async fn start_with_tls(authority: &Authority) -> Self {
        let file = |name: &str| authority.file(name);
        let (ca, cert, key) = (file("ca.pem"), file("member.pem"), file("member.key"));
        Self::start(&[
            "--protocol",
            "tls",
            "--tls-ca-file",
            &ca,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ])
        .await
    }

    /// With these flags and variables alone.
    pub(crate) async fn start_plain(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scheduler.json");
        let process = Command::new(env!("CARGO_BIN_EXE_dask-scheduler"))
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(["--dashboard-address", "127.0.0.1:0", "--scheduler-file"])
            .arg(&file)
            .args(flags)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .envs(variables.iter().copied())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let identity: serde_json::Value = within(async {
            loop {
                let text = tokio::fs::read(&file).await.unwrap_or_default();
                if let Ok(identity) = serde_json::from_slice(&text) {
                    return identity;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let address = identity["address"].as_str().unwrap();
        let address = Address::parse(address, Scheme::Tcp, None).unwrap();
        let http = identity["services"]["dashboard"].as_u64().unwrap();
        let about = get(u16::try_from(http).unwrap(), "/api/v1").await;
        let control_port = about["control"].as_u64();
        Self {
            process,
            address,
            control_port: control_port.map(|port| u16::try_from(port).unwrap()),
            _folder: folder,
        }
    }

    fn control_url(&self) -> Endpoint {
        let port = self.control_port.expect("the control API is on");
        Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
            .unwrap()
            .timeout(SOON)
    }

    pub(crate) async fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.control_url().connect_lazy())
    }

    pub(crate) async fn control_over_tls(
        &self,
        tls: &Tls,
    ) -> Result<ControlClient<Channel>, tonic::transport::Error> {
        let mut config = tokio_rustls::rustls::ClientConfig::clone(&tls.client);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let port = self.control_port.unwrap();
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await?;
                let name = "localhost".try_into().map_err(std::io::Error::other)?;
                let stream = connector.connect(name, stream).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = self.control_url().connect_with_connector(connect).await?;
        Ok(ControlClient::new(channel))
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("in time")
}

/// A page of the HTTP server as JSON.
async fn get(port: u16, path: &str) -> serde_json::Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// A connection to the scheduler.
pub(crate) async fn open(address: &Address) -> Comm {
    connect(address, None, Limits::default(), SOON)
        .await
        .unwrap()
}

/// An operation and its answer.
pub(crate) async fn rpc(address: &Address, message: &[(&'static str, Value)]) -> Value {
    let mut comm = open(address).await;
    let message = Value::map(message.iter().cloned());
    comm.writer.write(&encode_one(&message)).await.unwrap();
    let answer = within(comm.reader.read()).await.unwrap().unwrap();
    decode_one(&answer).unwrap()
}

/// A worker that runs nothing; it says that it has fetched what it is told to fetch, or not.
pub(crate) struct FakeWorker {
    pub(crate) address: String,
    reading: tokio::task::JoinHandle<()>,
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl FakeWorker {
    /// Registers; gives the connection and the answer.
    pub(crate) async fn register(
        scheduler: &Scheduler,
        address: &str,
        name: &str,
    ) -> (Comm, Value) {
        let mut comm = open(&scheduler.address).await;
        let message = Value::map([
            ("op", Value::from("register-worker")),
            ("reply", false.into()),
            ("address", address.into()),
            ("status", "running".into()),
            ("nthreads", 1_u64.into()),
            ("name", name.into()),
            ("now", 0.0.into()),
            ("resources", Value::Map(Vec::new())),
            ("memory_limit", (1_u64 << 30).into()),
            ("services", Value::Map(Vec::new())),
            ("nanny", Value::Nil),
            ("pid", 1_u64.into()),
            ("versions", Value::Map(Vec::new())),
            ("metrics", Value::Map(Vec::new())),
            ("extra", Value::Map(Vec::new())),
            ("stimulus_id", "register".into()),
        ]);
        comm.writer.write(&encode_one(&message)).await.unwrap();
        let answer = within(comm.reader.read()).await.unwrap().unwrap();
        let answer = decode_one::<Value>(&answer).unwrap();
        // The answer to a worker that is taken in comes on its stream, which has arrays.
        let answer = match answer {
            Value::Array(mut messages) => messages.remove(0),
            answer => answer,
        };
        (comm, answer)
    }

    /// Registers under an address that nobody listens on.
    pub(crate) async fn join(scheduler: &Scheduler, name: &str, fetches: bool) -> Self {
        let address = format!("tcp://127.0.0.1:{}", 1 + name.len());
        Self::join_at(scheduler, &address, name, fetches).await
    }

    /// Registers under an address.
    pub(crate) async fn join_at(
        scheduler: &Scheduler,
        address: &str,
        name: &str,
        fetches: bool,
    ) -> Self {
        let address = address.to_owned();
        let (mut comm, answer) = Self::register(scheduler, &address, name).await;
        assert_eq!(answer.field("status").and_then(Value::as_str), Some("OK"));
        let reading = tokio::spawn(async move {
            while let Ok(Some(frames)) = comm.reader.read().await {
                for message in decode_batch::<Value>(&frames).unwrap() {
                    let op = message.field("op").and_then(Value::as_str);
                    if op != Some("acquire-replicas") || !fetches {
                        continue;
                    }
                    let Some(Value::Map(who_has)) = message.field("who_has") else {
                        panic!("{message:?}");
                    };
                    let keys = who_has.iter().map(|(key, _)| key.clone()).collect();
                    let added = Value::map([
                        ("op", Value::from("add-keys")),
                        ("keys", Value::Array(keys)),
                        ("stimulus_id", "added".into()),
                    ]);
                    let batch = Value::Array(vec![added]);
                    comm.writer.write(&encode_one(&batch)).await.unwrap();
                }
            }
        });
        Self { address, reading }
    }

    /// Tells the scheduler that this worker holds data that nobody else has.
    pub(crate) async fn hold(&self, key: &str, nbytes: u64, scheduler: &Scheduler) {
        let who_has = Value::map([(key, Value::array([&*self.address]))]);
        let nbytes = Value::map([(key, Value::from(nbytes))]);
        let message = [
            ("op", "update_data".into()),
            ("reply", true.into()),
            ("who_has", who_has),
            ("nbytes", nbytes),
            ("client", "Client-test".into()),
        ];
        rpc(&scheduler.address, &message).await;
    }
}

/// A certificate authority in a folder, with the certificate `member`.
pub(crate) struct Authority {
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let key = "ecparam -name prime256v1 -genkey -noout -out";
        authority.openssl(&format!("{key} ca.key"));
        authority.openssl("req -x509 -new -key ca.key -subj /CN=authority -days 2 -out ca.pem");
        authority.openssl(&format!("{key} member.key"));
        authority.openssl("req -new -key member.key -subj /CN=member -out member.csr");
        std::fs::write(
            authority.folder.path().join("ext"),
            "basicConstraints=CA:FALSE",
        )
        .unwrap();
        authority.openssl(
            "x509 -req -in member.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile ext -out member.pem",
        );
        authority
    }

    fn openssl(&self, arguments: &str) {
        let output = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .output()
            .expect("the openssl command is there");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {text}");
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What a holder of a certificate speaks TLS with.
    pub(crate) fn tls(&self, name: &str) -> Tls {
        let files = TlsFiles {
            ca_file: Some(self.file("ca.pem")),
            cert: Some(self.file(&format!("{name}.pem"))),
            key: Some(self.file(&format!("{name}.key"))),
        };
        files
            .load(&Config::default())
            .unwrap()
            .expect("files are named")
    }
}
