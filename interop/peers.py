"""`peers.mjs`: two authorization servers from npm, the clients they know, and what they issued."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from node import NodeProgram

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# What tokens are for, where the client says it; the life of those for the last two is short.
JWT, OPAQUE, SHORT, BRIEF = (f"https://orders.example/{name}" for name in ("jwt", "opaque", "short", "brief"))
RESOURCES = {
    JWT: {"format": "jwt", "ttl": 600},
    OPAQUE: {"format": "opaque", "ttl": 600},
    SHORT: {"format": "opaque", "ttl": 37},
    BRIEF: {"format": "opaque", "ttl": 25},
}
SCOPES = ["orders:read", "orders:write"]


@dataclass(frozen=True)
class Client:
    """A client that `oidc-provider` knows, with the secret or the key that proves it."""

    name: str
    method: str = "client_secret_basic"
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None
    form: PrivateFormat = PrivateFormat.PKCS8
    grant: str = "client_credentials"
    scopes: list[str] = field(default_factory=lambda: SCOPES)
    # Every kind of character that a form, a header or a URL would have to encode.
    secret: str = field(default_factory=lambda: f"canary {secrets.token_urlsafe(24)}:+%/&=?")

    @property
    def id(self) -> str:
        return f"{self.name} 1:+%2F/&="

    @property
    def has_secret(self) -> bool:
        return self.method.startswith("client_secret")

    @property
    def pem(self) -> str:
        assert self.key
        return self.key.private_bytes(Encoding.PEM, self.form, NoEncryption()).decode()

    def registration(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "client_id": self.id,
            "token_endpoint_auth_method": self.method,
            "grant_types": [self.grant],
            "scope": " ".join(self.scopes),
        }
        if self.has_secret:
            told["client_secret"] = self.secret
        if self.key:
            kind = RSAAlgorithm if isinstance(self.key, rsa.RSAPrivateKey) else ECAlgorithm
            public = kind.to_jwk(self.key.public_key(), as_dict=True)
            told["jwks"] = {"keys": [{**public, "kid": self.name, "use": "sig"}]}
        return told


@dataclass(frozen=True)
class Issued:
    """A token, who issued it, the client that got it, and the form it asked with."""

    server: str
    client: str
    form: dict[str, str]
    answer: dict[str, Any]

    @property
    def token(self) -> str:
        return self.answer["access_token"]


class Peers(NodeProgram):
    """Runs until `close`; knows the questions `issued`, `rotate` and `withdraw`."""

    def __init__(self, log: Path, clients: list[Client]) -> None:
        super().__init__("peers.mjs", "oidc-provider", log)
        configuration = {
            "clients": [client.registration() for client in clients],
            "resources": RESOURCES,
            "scopes": SCOPES,
        }
        told = self.ask(json.dumps(configuration))
        self.oidc, self.mock = told["oidc"], told["mock"]

    def issued(self) -> list[Issued]:
        return [Issued(**one) for one in self.ask("issued")]

    def issued_to(self, client: Client) -> list[Issued]:
        """By `oidc-provider`."""
        return [one for one in self.issued() if (one.server, one.client) == (self.oidc, client.id)]
