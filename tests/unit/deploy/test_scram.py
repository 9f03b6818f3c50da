"""The password verifier, held against the published example."""

import base64
import hashlib
import hmac

from deploy.migrate import scram_verifier


def test_the_example_of_rfc_7677_gives_its_server_key() -> None:
    """The keys are those with which the exchange printed in RFC 7677 was signed."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = scram_verifier("pencil", salt)
    scheme, iterations, keys = verifier.split("$")
    stored_key, server_key = (base64.b64decode(part) for part in keys.split(":"))
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
    assert (scheme, iterations) == ("SCRAM-SHA-256", f"4096:{base64.b64encode(salt).decode()}")
    assert hashlib.sha256(client_key).digest() == stored_key
    assert (
        base64.b64encode(hmac.digest(server_key, message, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


def test_two_verifiers_of_one_password_differ() -> None:
    """The salt is drawn anew each time."""
    assert scram_verifier("pencil") != scram_verifier("pencil")
