"""Access tokens from a certified authorization server (npm: oidc-provider), by every way a client proves itself."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from edge import ZONE, Edge

HERE = Path(__file__).parent
# Every character that a form or a Basic header treats in its own way.
CLIENT_SECRET = "a b:c+d%e/f=g&h?" + secrets.token_hex(16)


class Peer:
    """The authorization server as a process, and the keys its clients sign with."""

    def __init__(self) -> None:
        self.keys = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
        }
        public = {
            "RS256": json.loads(RSAAlgorithm.to_jwk(self.keys["RS256"].public_key())),
            "ES256": json.loads(ECAlgorithm.to_jwk(self.keys["ES256"].public_key())),
        }
        known = json.dumps({"secret": CLIENT_SECRET, "keys": public})
        self._process = subprocess.Popen(
            ["node", str(HERE / "token_peer.mjs"), known],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.issuer = self._process.stdout.readline().strip()
        assert self.issuer.startswith("http://127.0.0.1:"), "the authorization server did not start"

    def pem(self, algorithm: str) -> str:
        encoded = self.keys[algorithm].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return encoded.decode()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if shutil.which("node") is None or not (HERE / "node_modules").exists():
        assert os.environ.get("CI") != "true", "CI must run the tests with the authorization server"
        pytest.skip("no node, or no interop/node_modules: `scripts/setup.sh node`")
    running = Peer()
    yield running
    running.close()


@pytest.mark.parametrize(
    ("client", "more"),
    [
        ("edge basic", 'client_secret = "secret://peer/client_secret"'),
        (
            "edge-post",
            'client_auth_method = "client_secret_post"\nclient_secret = "secret://peer/client_secret"',
        ),
        ("edge-RS256", 'client_auth_method = "private_key_jwt"\nprivate_key = "secret://peer/RS256"'),
        ("edge-ES256", 'client_auth_method = "private_key_jwt"\nprivate_key = "secret://peer/ES256"'),
    ],
)
@pytest.mark.parametrize("found", ["token_endpoint", "issuer"])
def test_a_certified_server_gives_tokens(
    own_edge: Edge, peer: Peer, client: str, more: str, found: str
) -> None:
    source = peer.issuer if found == "issuer" else f"{peer.issuer}/token"
    bundle = own_edge.home / f"bundles/{ZONE}.toml"
    provider = (
        '\n[[providers]]\nidentifier = "provider://peer"\nkind = "oauth2_client_credentials"\n'
        f'{found} = "{source}"\nclient_id = "{client}"\nscopes = ["crm.read"]\n{more}\n'
    )
    # An array of tables may stand anywhere in a document.
    bundle.write_text(bundle.read_text() + provider)
    entry = (
        f'[secrets.peer]\nzones = ["{ZONE}"]\nhosts = ["{peer.issuer.removeprefix("http://")}"]\n'
        f'client_secret = "{CLIENT_SECRET}"\n'
        f"RS256 = '''\n{peer.pem('RS256')}'''\nES256 = '''\n{peer.pem('ES256')}'''\n"
    )
    listed = own_edge.home / "secrets.toml"
    listed.write_text(listed.read_text() + entry)
    own_edge.run("reload", "--config", str(own_edge.config))
    config = ("--config", str(own_edge.config))
    tried = json.loads(own_edge.run("providers", "test", "provider://peer", "--json", *config))
    assert tried["outcome"] == "ok", tried
    assert 0 < tried["expires_in_seconds"] <= 600
    assert len(tried["fingerprint"]) == 16
    rows = json.loads(own_edge.run("providers", "list", "--json", *config))["providers"]
    assert any(row["provider"] == "provider://peer" and row[found] == source for row in rows)
