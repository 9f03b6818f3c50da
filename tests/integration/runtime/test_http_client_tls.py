"""The HTTP client and TLS: it speaks to the server that was meant, and to no other."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runtime.http_connection import HttpConnectError
from tests.support.raw_server import OK, serve


def certificate(directory: Path, name: str) -> Path:
    """Write a key and a certificate of its own making for a name, and return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = [x509.DNSName(name)]
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize(("name", "is_known"), [("localhost", True), ("localhost", False), ("elsewhere", True)])
async def test_a_server_must_be_known_and_be_the_one_that_was_meant(tmp_path: Path, name: str, is_known: bool) -> None:
    """A certificate that nobody vouches for, or that is another host's, ends the connection before any request."""
    file = certificate(tmp_path, name)
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(file)
    of_client = ssl.create_default_context(cafile=file if is_known else certificate(tmp_path, "other"))
    async with serve(OK, server_tls=of_server, tls=of_client) as (server, client):
        if is_known and name == "localhost":
            for _ in range(2):
                assert (await client.send("GET", "/")).body == b"hi"
            assert server.connections == 1
        else:
            with pytest.raises(HttpConnectError, match="no connection: SSLCertVerificationError"):
                await client.send("GET", "/")
            assert not server.requests
