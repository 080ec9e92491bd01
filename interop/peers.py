"""`peers.mjs`: two authorization servers from npm, the clients they know, and what they issued."""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

HERE = Path(__file__).parent
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


class Peers:
    """Runs until `close`. Without Node or the packages the test is skipped; in CI that is a failure."""

    def __init__(self, log: Path, clients: list[Client]) -> None:
        node = shutil.which("node")
        if node is None or not (HERE / "node_modules/oidc-provider").exists():
            reason = "Node or interop/node_modules is missing: scripts/setup.sh node-peers installs them"
            if os.environ.get("CI") == "true":
                raise RuntimeError(reason)
            pytest.skip(reason)
        self._log = log
        self._answers: queue.Queue[str] = queue.Queue()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [node, str(HERE / "peers.mjs")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdin and self._process.stdout
        self._questions: IO[str] = self._process.stdin
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._reader.start()
        configuration = {
            "clients": [client.registration() for client in clients],
            "resources": RESOURCES,
            "scopes": SCOPES,
        }
        told = self.ask(json.dumps(configuration))
        self.oidc, self.mock = told["oidc"], told["mock"]

    def ask(self, question: str) -> Any:
        """A question that `peers.mjs` knows: `issued`, `rotate`, `withdraw`."""
        self._questions.write(question + "\n")
        self._questions.flush()
        try:
            return json.loads(self._answers.get(timeout=30))
        except (queue.Empty, json.JSONDecodeError):
            raise RuntimeError(f"no answer to {question}:\n{self._log.read_text()}") from None

    def issued(self) -> list[Issued]:
        return [Issued(**one) for one in self.ask("issued")]

    def issued_to(self, client: Client) -> list[Issued]:
        """By `oidc-provider`."""
        return [one for one in self.issued() if (one.server, one.client) == (self.oidc, client.id)]

    def close(self) -> None:
        self._questions.close()
        try:
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(timeout=10)

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._answers.put(line)
        # Whoever waits is told that nothing comes.
        self._answers.put("")
