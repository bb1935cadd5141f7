"""Makes the certificates of a testbed: one authority of its own, and a certificate for each party.

A certificate names its party in two ways: as ``edge-testbed://TESTBED/node-3``, which servers read,
and as ``node-3.TESTBED.edge-testbed``, which clients ask a server for, wherever it listens. All are
good for a month at most. ``cryptography`` is imported inside: nodes and controllers only read.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from testbed.errors import PrerequisiteMissing
from testbed.rpc.credentials import PartyCertificate, server_name, uri
from testbed.rpc.identity import Identity

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LIFETIME: Final = datetime.timedelta(days=30)
"""Validity of certificates; connections that are open stay open."""

RENEW_BEFORE: Final = datetime.timedelta(days=20)
"""``up`` makes new ones where less than this is left."""

_SKEW: Final = datetime.timedelta(hours=1)
"""Clocks of machines may be behind by so much."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs the certificates of testbed ``testbed``; no process of it has its key."""

    testbed: str
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, testbed: str, now: datetime.datetime | None = None) -> Self:
        """Return a new authority, which nobody trusts yet."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"edge-testbed authority of {testbed}")
        builder = _builder(name, name, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_usage(key_cert_sign=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return cls(testbed, key, _signed(builder, key))

    @classmethod
    def from_pem(cls, testbed: str, text: str) -> Self:
        """Inverse of ``to_pem``.

        Raises: PrerequisiteMissing: it is damaged.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(text.encode(), None)
            certificate = x509.load_pem_x509_certificate(text.encode())
        except (ValueError, TypeError) as error:
            raise PrerequisiteMissing(
                f"the authority of testbed '{testbed}' cannot be read: {error}",
                "take the testbed down and bring it up again",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PrerequisiteMissing(
                f"the authority of testbed '{testbed}' has an unsupported kind of key",
                "take the testbed down and bring it up again",
            )
        return cls(testbed, key, certificate)

    def to_pem(self) -> str:
        """Key and certificate."""
        return _key_pem(self.key) + _pem(self.certificate)

    @property
    def fingerprint(self) -> str:
        """Tells this authority from every other."""
        from cryptography.hazmat.primitives import hashes

        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def expires(self) -> datetime.datetime:
        """Return when its certificates end at the latest."""
        return self.certificate.not_valid_after_utc

    def issue(self, identity: Identity) -> PartyCertificate:
        """Return a certificate for ``identity`` with a new key, valid as long as the authority."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _name(str(identity)), self.certificate.subject, key.public_key(), None
        ).not_valid_after(self.certificate.not_valid_after_utc)
        names = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(uri(self.testbed, identity)),
                x509.DNSName(server_name(self.testbed, identity)),
            ]
        )
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        purposes = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        )
        builder = builder.add_extension(purposes, critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        return PartyCertificate(
            identity,
            self.testbed,
            _pem(_signed(builder, self.key)),
            _key_pem(key),
            _pem(self.certificate),
        )


def expiry(certificate: PartyCertificate) -> datetime.datetime:
    """Return when a certificate ends."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.certificate.encode()).not_valid_after_utc


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, now: datetime.datetime | None
) -> x509.CertificateBuilder:
    from cryptography import x509

    begin = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin - _SKEW)
    return builder.not_valid_after(begin + LIFETIME) if subject == issuer else builder


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
