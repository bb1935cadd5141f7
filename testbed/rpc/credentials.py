"""Credentials of the parties of a testbed: a secret for every pair, or a certificate.

On one machine a caller shows a token that is good at one server only: a server that is no longer
to be trusted learns nothing that opens another one. Tokens are made from the server's key, and the
keys from one secret that nobody keeps::

    key(server) = HMAC(secret, server)        token(caller, server) = HMAC(key(server), caller)

Between machines both ends show a certificate of the testbed's own authority, see ``certificates``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from testbed.errors import PrerequisiteMissing
from testbed.rpc.identity import CONTROLLER, OPERATOR, Identity

AUTHORIZATION_KEY: Final = "authorization"
"""Metadata key of a token, as in ``Bearer TOKEN``."""

CALLER_KEY: Final = "edge-testbed-caller"
"""Metadata key of who shows the token; the operator if it is absent."""

URI_SCHEME: Final = "edge-testbed"
DOMAIN: Final = "edge-testbed"

_LARGEST_FILE: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Secrets:
    """Tokens of one party. ``key`` makes those that others show it, empty for one that serves
    nobody; ``tokens`` are what it shows, by the server that each is good at."""

    identity: Identity
    key: str = field(default="", repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    shared: str = field(default="", repr=False)
    """The secret that all is made from, where every party has it; who has it is the operator. For
    connections without encryption, which is what somebody has asked for: see ``channels``."""

    def metadata(self, server: Identity) -> tuple[tuple[str, str], ...]:
        """Return what a call to ``server`` shows; nothing where it has nothing to show."""
        token = self.shown_to(server)
        if not token:
            return ()
        return ((AUTHORIZATION_KEY, f"Bearer {token}"), (CALLER_KEY, str(self.identity)))

    def identify(self, who: str, authorization: str) -> Identity | None:
        """Return who shows this, None if it is not true; in the same time for all tokens."""
        try:
            claimed = Identity.parse(who) if who else OPERATOR
        except ValueError:
            return None
        expected = self.expected_of(claimed)
        if not expected:
            return None
        given = authorization.removeprefix("Bearer ").encode(errors="replace")
        return claimed if hmac.compare_digest(given, expected.encode()) else None

    def shown_to(self, server: Identity) -> str:
        """Return the token that a call to ``server`` shows; empty if there is none."""
        if self.shared:
            return _shared_token(self.shared, self.identity, server)
        return self.tokens.get(str(server), "")

    def expected_of(self, caller: Identity) -> str:
        """Return the token that ``caller`` shows here; empty if this party serves nobody."""
        if self.shared:
            return _shared_token(self.shared, caller, self.identity)
        return _token(self.key, caller) if self.key else ""

    def to_json(self) -> str:
        """Return one line of JSON; ``read`` gives equal ones back."""
        return json.dumps(
            {"identity": str(self.identity), "key": self.key, "tokens": dict(self.tokens)}
        )


@dataclass(frozen=True, slots=True)
class PartyCertificate:
    """A certificate with its key, and the authority that everybody of the testbed trusts. PEM."""

    identity: Identity
    testbed: str
    certificate: str = field(repr=False)
    key: str = field(repr=False)
    authority: str = field(repr=False)

    def identify_peer(self, seen: Mapping[str, Iterable[bytes]]) -> Identity | None:
        """Return who has connected, from gRPC's context; None: nobody of this testbed."""
        for name in seen.get("x509_subject_alternative_name", ()):
            found = _URI.fullmatch(name.decode(errors="replace"))
            if found is not None and found["testbed"] == self.testbed:
                try:
                    return Identity.parse(found["identity"])
                except ValueError:
                    return None
        return None

    def to_pem(self) -> str:
        """Key, certificate and authority in one text; ``read`` gives equal ones back."""
        return f"{self.key}{self.certificate}{self.authority}"


Credentials: TypeAlias = Secrets | PartyCertificate

_URI: Final = re.compile(rf"{URI_SCHEME}://(?P<testbed>[a-z0-9-]+)/(?P<identity>[a-z0-9-]+)")


def uri(testbed: str, identity: Identity) -> str:
    """Return how a certificate names a party."""
    return f"{URI_SCHEME}://{testbed}/{identity}"


def server_name(testbed: str, identity: Identity) -> str:
    """Return the name that a client asks a server's certificate for, wherever the server is."""
    return f"{identity}.{testbed}.{DOMAIN}"


def issue(secret: str, identity: Identity, others: Iterable[Identity]) -> Secrets:
    """Return the credentials of ``identity`` in the testbed of ``secret``, to call ``others``."""
    key = "" if identity == OPERATOR else _key(secret, identity)
    tokens = {
        str(other): _token(_key(secret, other), identity) for other in others if other != identity
    }
    return Secrets(identity, key, tokens)


def shared(secret: str, identity: Identity) -> Secrets:
    """Credentials for ``identity`` from a secret that all parties of the testbed have."""
    return Secrets(identity, shared=secret)


def of_operator(text: str, *, plaintext: bool = False) -> Credentials:
    """Return an operator's credentials from a token, or from the PEM of a certificate with its key.

    ``plaintext``: it is the token that all parties share, and may be shown without encryption.

    Raises: PrerequisiteMissing: a PEM that is incomplete.
    """
    text = text.strip()
    if "-----BEGIN" in text:
        return _certificate(text, "the operator's credentials")
    if plaintext:
        return shared(text, OPERATOR)
    return Secrets(OPERATOR, tokens={str(CONTROLLER): text})


def read(path: Path) -> Credentials:
    """Return the credentials in a file, of either kind.

    Raises: PrerequisiteMissing: it cannot be read, or is no such file.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8")
        if "-----BEGIN" in text:
            return _certificate(text, str(path))
        document: Any = json.loads(text)
        return Secrets(
            Identity.parse(document["identity"]),
            str(document["key"]),
            {str(server): str(token) for server, token in document["tokens"].items()},
        )
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"these are no credentials ({type(error).__name__})"
    raise PrerequisiteMissing(
        f"the credentials in {path} cannot be used: {reason}",
        "name a file that `testbed credentials` or `testbed up` has written and that this process "
        "may read",
    )


def _key(secret: str, server: Identity) -> str:
    return _hmac(secret, f"server {server}")


def _token(key: str, caller: Identity) -> str:
    return _hmac(key, f"caller {caller}")


def _shared_token(secret: str, caller: Identity, server: Identity) -> str:
    return secret if caller == OPERATOR else _token(_key(secret, server), caller)


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z ]+)-----\n[A-Za-z0-9+/=\s]+?-----END \1-----\n?")


def _certificate(text: str, where: str) -> PartyCertificate:
    keys: list[str] = []
    certificates: list[str] = []
    for block in _BLOCK.finditer(text.replace("\r\n", "\n")):
        (certificates if block[1] == "CERTIFICATE" else keys).append(block[0].rstrip() + "\n")
    if len(keys) == 1 and len(certificates) == 2:
        named = _named(certificates[0])
        if named is not None:
            return PartyCertificate(*named, certificates[0], keys[0], certificates[1])
    raise PrerequisiteMissing(
        f"{where}: {len(keys)} keys and {len(certificates)} certificates, where a key, the "
        "certificate of a party of a testbed and that of its authority are expected",
        "create new ones: testbed credentials NAME --out DIR",
    )


def _named(certificate: str) -> tuple[Identity, str] | None:
    """Identity and testbed that a certificate names.

    The name is read from where it stands in the certificate, as text: nodes are started without
    what reads certificates. Nothing is trusted because of it: others check the certificate itself.
    """
    try:
        raw = base64.b64decode("".join(certificate.strip().splitlines()[1:-1]))
    except binascii.Error:
        return None
    # A general name of the kind URI is the byte 0x86, its length, and the text.
    start = raw.find(f"{URI_SCHEME}://".encode())
    if start < 2 or raw[start - 2] != 0x86:
        return None
    found = _URI.fullmatch(raw[start : start + raw[start - 1]].decode(errors="replace"))
    if found is None:
        return None
    try:
        return Identity.parse(found["identity"]), found["testbed"]
    except ValueError:
        return None
