"""`consents.mjs` and an edge whose agents act with accounts that Ada connected there."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from edge import APPLICATION, ZONE, Edge
from upstream import Exchange, HttpUpstream
from upstreams import Upstreams

HERE = Path(__file__).parent
SCOPES = 'scopes = ["orders:read", "orders:write"]'
# An access token lives this long; the edge renews it in the last 30 seconds.
LIFE = 34
# Provider, how its client proves itself, and the grants the client has.
CLIENTS = {
    "basic": ("client_secret_basic", ["authorization_code", "refresh_token"]),
    "public": ("none", ["authorization_code", "refresh_token"]),
    "post": ("client_secret_post", ["authorization_code"]),
    "denied": ("client_secret_basic", ["authorization_code"]),
}


class Consents:
    """Runs until `close`."""

    def __init__(self, log: Path) -> None:
        node = shutil.which("node")
        if node is None or not (HERE / "node_modules/oidc-provider").exists():
            pytest.skip("Node or interop/node_modules is missing: scripts/setup.sh node-peers installs them")
        self.secret = f"canary-client-{secrets.token_urlsafe(24)}"
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [node, str(HERE / "consents.mjs")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdin and self._process.stdout
        self._questions: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        self._watch = threading.Timer(240, self._process.kill)
        self._watch.start()
        self.configure("http://127.0.0.1:1/unknown")

    def configure(self, redirect: str, life: int = LIFE) -> None:
        clients = [
            {
                "client_id": name,
                "token_endpoint_auth_method": method,
                "grant_types": grants,
                "response_types": ["code"],
                "scope": "orders:read orders:write",
                **({} if method == "none" else {"client_secret": self.secret}),
            }
            for name, (method, grants) in CLIENTS.items()
        ]
        told = self.ask("configure", {"clients": clients, "redirect": redirect, "life": life})
        self.oidc, self.mock = told["oidc"], told["mock"]

    def ask(self, name: str, value: Any = None) -> Any:
        self._questions.write(json.dumps({"do": name, "value": value}) + "\n")
        self._questions.flush()
        return json.loads(self._answers.readline())

    def asked(self, grant: str) -> list[dict[str, Any]]:
        return [one for one in self.ask("asked") if one["form"].get("grant_type") == grant]

    def close(self) -> None:
        self._watch.cancel()
        self._questions.close()
        try:
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()


class Orders(HttpUpstream):
    """Lets in who shows a token that `oidc-provider` says is good, or one of the other peer's."""

    def __init__(self, peers: Consents) -> None:
        self._peers = peers
        super().__init__()

    def answer(self, exchange: Exchange) -> None:
        token = (exchange.received.header("authorization") or "").removeprefix("Bearer ")
        good = token.count(".") == 2 or self._introspected(token)
        exchange.reply(200 if good else 401, {"token": token}, {"X-Token": token or "none"})

    def _introspected(self, token: str) -> bool:
        url = f"{self._peers.oidc}/token/introspection"
        found = httpx.post(url, auth=("basic", self._peers.secret), data={"token": token}).json()
        return found.get("active") is True


class ConsentEdge(Edge):
    def __init__(self, home: Path, upstreams: Upstreams, peers: Consents, orders: Orders) -> None:
        self.peers, self.orders = peers, orders
        super().__init__(home, upstreams)
        self.peers.configure(f"{self.authority}/oauth/2/callback")

    def _write_files(self, upstreams: Upstreams) -> None:
        super()._write_files(upstreams)
        secret = 'client_secret = "secret://peers/secret"\n'
        sources = {name: f'issuer = "{self.peers.oidc}"' for name in CLIENTS}
        sources["post"] = "\n".join(
            f'{name}_endpoint = "{self.peers.oidc}/{path}"'
            for name, path in [("authorization", "auth"), ("token", "token"), ("revocation", "token/revocation")]
        )
        told = ""
        for name, source in {**sources, "mock": f'issuer = "{self.peers.mock}"'}.items():
            method = CLIENTS[name][0] if name in CLIENTS else "client_secret_basic"
            params = ', ui_locales = "no"' if name == "denied" else ""
            told += (
                f'\n[[providers]]\nidentifier = "provider://{name}"\nkind = "oauth2_authorization_code"\n{source}\n'
                f'client_id = "{name}"\nclient_auth_method = "{method}"\n{SCOPES}\n'
                f'authorization_params = {{ prompt = "consent"{params} }}\n'
                f'{"" if method == "none" else secret}'
                f'\n[[resources]]\nidentifier = "resource://{name}"\nupstream_url = "{self.orders.url}"\n'
                f'scopes = ["orders:use"]\ncredential_provider = "provider://{name}"\n'
                'operation_enforcement = "transport_uniform"\n'
                'plugins = [{ name = "response_scrub", bodies = true }]\n'
                f'\n[grants."resource://{name}"]\napplication = "main"\n'
                f'roles = {{ {APPLICATION} = ["orders:use"] }}\n'
            )
        bundle = self.home / f"bundles/{ZONE}.toml"
        self._write(f"bundles/{ZONE}.toml", bundle.read_text() + told)
        hosts = [url.removeprefix("http://") for url in (self.peers.oidc, self.peers.mock, self.orders.url)]
        kept = f'\n[secrets.peers]\nzones = ["{ZONE}"]\nhosts = {json.dumps(hosts)}\n'
        kept += f'secret = "{self.peers.secret}"\n'
        self._write("secrets.toml", (self.home / "secrets.toml").read_text() + kept)
