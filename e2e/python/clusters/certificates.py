"""An authority of one's own and certificates that it has signed, as files."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_pair(folder: Path, name: str, issuer: tuple | None = None) -> tuple:
    """A key and a certificate for it, signed by `issuer` or by itself; both written as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer[0] if issuer else key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(pem)
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def settings(folder: Path, authority: str = "ca", member: str = "member") -> dict[str, str]:
    """Environment variables with which every Dask process shows the certificate of `member`."""
    files = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": f"{folder}/{authority}.pem"}
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        files[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = f"{folder}/{member}.pem"
        files[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = f"{folder}/{member}.key"
    return files
