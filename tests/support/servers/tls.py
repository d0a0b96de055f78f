"""Good and bad certificates, and TLS contexts of servers that present them."""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)

# The names that the good certificate is for.
NAMES = ("localhost", "127.0.0.1", "*.example.test")

PASSWORD = "hunter2SECRET"
FORMATS = {
    "PKCS8": serialization.PrivateFormat.PKCS8,
    "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
}


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key, in PEM files.

    Attributes:
        certificate: The file of the certificate, its chain included.
        key: The file of its private key.
        both: One file with the key and the certificate.
    """

    certificate: Path
    key: Path
    both: Path


class Tls:
    """A certificate authority and its certificates, as PEM files in a folder.

    Attributes:
        ca: The CA that signed every certificate, unless another is named.
        other_ca: A CA that signed nothing but `stranger`.
        good: For localhost, 127.0.0.1 and *.example.test, valid today.
        wrong_name: Valid, but for another host.
        expired: No longer valid.
        not_yet_valid: Not valid yet.
        self_signed: For the names of `good`, signed by no CA.
        client: A client certificate, signed by `ca`.
        stranger: A client certificate, signed by `other_ca`.
    """

    def __init__(self, folder: Path):
        now = dt.datetime.now(dt.UTC)
        ca = trustme.CA()
        other = trustme.CA()
        self.folder = folder
        self.ca = self._write("ca.pem", ca.cert_pem.bytes())
        self.other_ca = self._write("other-ca.pem", other.cert_pem.bytes())
        self.good = self._leaf("good", ca.issue_cert(*NAMES))
        self.wrong_name = self._leaf("wrong-name", ca.issue_cert("another.example.org"))
        self.expired = self._leaf(
            "expired", ca.issue_cert(*NAMES, not_before=now - 9 * DAY, not_after=now - DAY)
        )
        self.not_yet_valid = self._leaf(
            "not-yet-valid", ca.issue_cert(*NAMES, not_before=now + DAY, not_after=now + 9 * DAY)
        )
        self.self_signed = self._files("self-signed", *_self_signed(now))
        self.client = self._leaf("client", ca.issue_cert("client@example.test"))
        self.stranger = self._leaf("stranger", other.issue_cert("stranger@example.test"))

    def server(
        self,
        certificate: Certificate | None = None,
        client_ca: Path | None = None,
        maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ) -> ssl.SSLContext:
        """Make a new TLS context for a server.

        Args:
            certificate: The server's certificate; `good` by default.
            client_ca: Demand a client certificate that this CA signed.
            maximum: The highest version spoken. (With TLS 1.3 a client learns only from its
                first read that its certificate was refused, with TLS 1.2 in the handshake.)
        """
        certificate = certificate or self.good
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        context.maximum_version = maximum
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def _files(self, name: str, certificate: bytes, key: bytes) -> Certificate:
        return Certificate(
            self._write(f"{name}.crt", certificate),
            self._write(f"{name}.key", key),
            self._write(f"{name}.pem", key + certificate),
        )

    def _leaf(self, name: str, leaf: trustme.LeafCert) -> Certificate:
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._files(name, chain, leaf.private_key_pem.bytes())


def encrypted(
    certificate: Certificate, folder: Path, kind: str = "PKCS8", password: str = PASSWORD
) -> Certificate:
    """Write the certificate and its encrypted key to new files in a folder."""
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        FORMATS[kind],
        serialization.BestAvailableEncryption(password.encode()),
    )
    made = Certificate(certificate.certificate, folder / "secret.key", folder / "secret.pem")
    made.key.write_bytes(key)
    made.both.write_bytes(key + certificate.certificate.read_bytes())
    return made


def _self_signed(now: dt.datetime) -> tuple[bytes, bytes]:
    """Make a self-signed certificate and its key, which trustme can't do."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed")])
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(text)) if text[0].isdigit() else x509.DNSName(text)
        for text in NAMES
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 9 * DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
