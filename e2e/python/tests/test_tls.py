"""TLS as stock has it: a CA of one's own, a client certificate, no check of host names."""

from __future__ import annotations

import contextlib
import operator
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from distributed.security import Security

from clusters import Cluster
from clusters.certificates import make_pair


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = make_pair(folder, "ca")
    make_pair(folder, "member", authority)
    make_pair(folder, "other-ca")
    return folder


@contextlib.contextmanager
def cluster_with(commands, folder: Path, authority: str = "ca", member: str = "member") -> Iterator[Cluster]:
    """A cluster whose scheduler and workers show the certificate of `member`."""
    files = f"--tls-ca-file {folder}/{authority}.pem --tls-cert {folder}/{member}.pem --tls-key {folder}/{member}.key"
    scheduler = f"{commands.scheduler} --protocol tls {files}"
    worker = commands.worker.replace("{scheduler}", "{scheduler} " + files)
    with Cluster(scheduler, worker) as cluster:
        cluster.address = cluster.address.replace("tcp://", "tls://")
        yield cluster


@pytest.fixture
def secured(commands, certificates: Path) -> Iterator[Cluster]:
    with cluster_with(commands, certificates) as cluster:
        yield cluster


def security(folder: Path, authority: str = "ca", member: str = "member") -> Security:
    return Security(
        tls_ca_file=f"{folder}/{authority}.pem",
        tls_client_cert=f"{folder}/{member}.pem",
        tls_client_key=f"{folder}/{member}.key",
        require_encryption=True,
    )


def test_client_scheduler_and_workers_compute_over_tls(secured: Cluster, certificates: Path):
    secured.start_worker()
    secured.start_worker()
    with Client(secured.address, security=security(certificates), timeout=30) as client:
        client.wait_for_workers(2, timeout=30)
        assert all(address.startswith("tls://") for address in client.nthreads())
        futures = client.map(operator.neg, range(20))
        assert client.submit(sum, futures).result(timeout=30) == -190


def test_one_without_a_certificate_is_turned_away(secured: Cluster):
    with pytest.raises((OSError, TimeoutError)):
        Client(secured.address.replace("tls", "tcp"), timeout=3).close()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        pytest.raises((OSError, EOFError)),
        socket.create_connection((secured.host, secured.port), 10) as raw,
        context.wrap_socket(raw) as bare,
    ):
        bare.sendall(b"\0" * 16)
        if not bare.recv(16):
            raise EOFError


def test_a_client_that_trusts_another_authority_does_not_connect(secured: Cluster, certificates: Path):
    with pytest.raises((OSError, TimeoutError)):
        Client(secured.address, security=security(certificates, "other-ca"), timeout=3).close()


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("key", ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256"])
def test_one_self_signed_certificate_serves_everybody(commands, tmp_path: Path, key: str):
    # As `openssl req -x509` makes it, which says of itself that it is an authority.
    openssl(tmp_path, f"req -x509 -newkey {key} -nodes -keyout own.key -subj /CN=cluster -days 2 -out own.pem")
    with cluster_with(commands, tmp_path, "own", "own") as cluster:
        cluster.start_worker()
        with Client(cluster.address, security=security(tmp_path, "own", "own"), timeout=30) as client:
            assert client.submit(operator.neg, 1).result(timeout=30) == -1


def test_certificates_of_x509_version_1_work(commands, tmp_path: Path):
    openssl(tmp_path, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=authority -days 2 -out ca.pem")
    openssl(tmp_path, "req -newkey rsa:2048 -nodes -keyout member.key -subj /CN=member -out member.csr")
    # Without extensions, which makes version 1 unless a newer openssl adds some.
    openssl(tmp_path, "x509 -req -in member.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -out member.pem")
    with cluster_with(commands, tmp_path) as cluster:
        cluster.start_worker()
        with Client(cluster.address, security=security(tmp_path), timeout=30) as client:
            assert client.submit(operator.neg, 1).result(timeout=30) == -1
