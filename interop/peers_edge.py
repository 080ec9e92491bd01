"""An edge whose upstream wants the peers' access tokens: a provider for each way to get one, and each way to fail."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat

from certificates import Certificate
from edge import APPLICATION, ZONE, Edge
from peers import BRIEF, JWT, JWT_BEARER, OPAQUE, SHORT, Client, Peers
from upstream import Exchange, HttpUpstream
from upstreams import Upstreams

AUDIENCE = "https://orders.example"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVES = {"es256": ec.SECP256R1(), "es384": ec.SECP384R1(), "es512": ec.SECP521R1()}
CERTIFICATE = Certificate()
CERTIFIED = serialization.load_pem_private_key(CERTIFICATE.key.encode(), None)
SIGNING = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
DIGEST = x509.load_pem_x509_certificate(CERTIFICATE.certificate.encode()).fingerprint(hashes.SHA256())
THUMBPRINT = base64.urlsafe_b64encode(DIGEST).rstrip(b"=").decode()

CLIENTS = {
    client.name: client
    for client in [
        Client("basic"),
        Client("post", "client_secret_post"),
        Client("none", "none"),
        Client("rs256", "private_key_jwt", RSA, PrivateFormat.TraditionalOpenSSL),
        Client("es256", "private_key_jwt", SIGNING["es256"], PrivateFormat.TraditionalOpenSSL),
        Client("es384", "private_key_jwt", SIGNING["es384"]),
        Client("es512", "private_key_jwt", SIGNING["es512"]),
        Client("certified", "private_key_jwt", CERTIFIED),
        Client("assertion", "private_key_jwt", RSA, grant=JWT_BEARER),
        Client("assertion-basic", key=SIGNING["es256"], grant=JWT_BEARER),
        Client("short"),
        Client("brief"),
        Client("rotating"),
        Client("posting"),
        Client("tried"),
        Client("faulty"),
        Client("modest", scopes=["orders:read"]),
    ]
}

# What is wrong between the edge and the peer, and what the caller, the ledger and the operator are then told.
FAULTS = {
    "broken": (502, "provider_unavailable", "the answer is 500, without an OAuth error code"),
    "cut": (502, "provider_unavailable", "the answer broke off"),
    "html": (502, "provider_answer_invalid", "the answer is no JSON object"),
    "twice": (502, "provider_answer_invalid", "the answer is no JSON object"),
    "mac": (502, "provider_answer_invalid", "the `token_type` is not Bearer"),
    "past": (502, "provider_answer_invalid", "`expires_in` is no time ahead"),
    "redirect": (502, "provider_answer_invalid", "the answer is 307, without an OAuth error code"),
    "limited": (429, "provider_rate_limited", "the answer is 429, without an OAuth error code"),
    "telltale": (502, "provider_refused", "the answer is 400, without an OAuth error code"),
}
# What is odd, and does no harm.
ODDITIES = ["hiccup", "text", "eternal", "untyped"]


class ResourceServer(HttpUpstream):
    """Lets in who shows a token of a peer, says what it found out about it, and repeats it where it should not."""

    def __init__(self, peers: Peers, auditor: Client) -> None:
        self._auditor = (quote(auditor.id, safe=""), quote(auditor.secret, safe=""))
        self._introspection = f"{peers.oidc}/token/introspection"
        self._keys = {peers.oidc: f"{peers.oidc}/jwks", peers.mock: f"{peers.mock}/jwks"}
        super().__init__()

    def answer(self, exchange: Exchange) -> None:
        scheme, _, token = (exchange.received.header("authorization") or "").partition(" ")
        found = self._verified(token) if token.count(".") == 2 else self.introspected(token)
        if scheme != "Bearer" or found is None:
            told = f'Bearer error="invalid_token", error_description="{token}"'
            exchange.reply(401, {"error": "invalid_token", "token": token}, {"WWW-Authenticate": told})
        else:
            told = {"path": exchange.received.path, "found": found, "token": token}
            exchange.reply(200, told, {"X-Token": token})

    def introspected(self, token: str) -> dict | None:
        """What the peer that issued it says."""
        found = httpx.post(self._introspection, auth=self._auditor, data={"token": token}).json()
        return found if found.get("active") else None

    def _verified(self, token: str) -> dict | None:
        """With the keys that its issuer publishes now."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
            keys = jwt.PyJWKClient(self._keys[issuer], cache_jwk_set=False)
            return jwt.decode(
                token,
                keys.get_signing_key_from_jwt(token),
                algorithms=["ES256", "RS256"],
                audience=[JWT, AUDIENCE],
                issuer=issuer,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, KeyError):
            return None


class FaultProxy(HttpUpstream):
    """Between the edge and `oidc-provider`: the first part of the path is what goes wrong."""

    def __init__(self, peers: Peers, server: ResourceServer) -> None:
        self._token_endpoint = f"{peers.oidc}/token"
        self._elsewhere = f"{server.url}/stolen"
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()
        super().__init__()

    def answer(self, exchange: Exchange) -> None:
        received = exchange.received
        fault = received.path.strip("/")
        self.asked[fault] += 1
        names = ("authorization", "content-type", "accept")
        headers = {name: value for name in names if (value := received.header(name))}
        good = httpx.post(self._token_endpoint, content=received.body, headers=headers)
        if good.status_code != 200:
            exchange.reply(good.status_code, good.content)
            return
        told, status, more = good.json(), 200, {}
        match fault:
            case "slow":
                # Longer than anybody should wait.
                self.over.wait(timeout=30)
            case "broken":
                status = 500
            case "hiccup" if self.asked[fault] == 1:
                status = 503
            case "cut":
                exchange.close_connection = True
                exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + good.content)
                return
            case "html":
                told = b"<html>" + good.content
            case "twice":
                told = good.content.replace(b"{", b'{"access_token":"another",', 1)
            case "mac":
                told["token_type"] = "mac"
            case "untyped":
                del told["token_type"]
            case "past":
                told["expires_in"] = -5
            case "text":
                told["expires_in"] = "600"
            case "eternal":
                told["expires_in"] = 10**15
            case "redirect":
                status, more = 307, {"Location": self._elsewhere}
            case "limited":
                status = 429
            case "telltale":
                status = 400
                told = {
                    "error": received.header("authorization"),
                    "error_description": received.body.decode(),
                    **told,
                }
        try:
            exchange.reply(status, told, more)
        except OSError:
            # The edge has given up.
            exchange.close_connection = True


class PeersEdge(Edge):
    """The edge of the other tests, with providers and resources of these beside its own."""

    def __init__(
        self, home: Path, upstreams: Upstreams, peers: Peers, server: ResourceServer, proxy: FaultProxy
    ) -> None:
        self.peers, self.server, self.proxy = peers, server, proxy
        super().__init__(home, upstreams)

    def providers(self) -> dict[str, str]:
        """Names and what stands in the bundle."""
        issuer = f'issuer = "{self.peers.oidc}"'
        endpoint = f'token_endpoint = "{self.peers.oidc}/token"'
        mock = f'issuer = "{self.peers.mock}"'
        scopes = 'scopes = ["orders:read", "orders:write"]'
        opaque, verified = f'resource = "{OPAQUE}"\n{scopes}', f'resource = "{JWT}"\n{scopes}'
        asserted = f'grant_type = "jwt_bearer"\n{scopes}'
        person = f'{asserted}\nassertion_subject = "ada@example.com"\nassertion_audience = "{self.peers.oidc}/token"'
        audience = f'audience = "{AUDIENCE}"\n{scopes}'
        told = {
            "basic": self._told("basic", issuer, opaque),
            "post": self._told("post", endpoint, verified),
            "none": self._told("none", issuer, opaque),
            "rs256": self._told("rs256", issuer, verified),
            "es256": self._told("es256", endpoint, opaque),
            "es384": self._told("es384", issuer, verified),
            "es512": self._told("es512", endpoint, opaque),
            "certified": self._told(
                "certified", issuer, f"{opaque}\ncertificate = '''\n{CERTIFICATE.certificate}'''"
            ),
            "assertion": self._told("assertion", issuer, asserted),
            "assertion-basic": self._told("assertion-basic", endpoint, person),
            "mock": self._told("basic", mock, audience),
            "mock-short": self._told("post", mock, f'{audience}\ntoken_params = {{ life = "37" }}'),
            "short": self._told("short", issuer, f'resource = "{SHORT}"'),
            "brief": self._told("brief", endpoint, f'resource = "{BRIEF}"'),
            "rotating": self._told("rotating", issuer, verified),
            "posting": self._told("posting", issuer, verified),
            "tried": self._told("tried", issuer, opaque),
            "wrong-secret": self._told("basic", issuer, opaque).replace("basic-secret", "post-secret"),
            "wrong-key": self._told("es256", issuer, opaque).replace("es256-key", "es384-key"),
            "wrong-method": self._told("none", issuer, opaque).replace(
                CLIENTS["none"].id, CLIENTS["basic"].id
            ),
            "wrong-scope": self._told("modest", issuer, opaque),
            "wrong-target": self._told("basic", issuer, 'resource = "https://elsewhere.example"'),
            "wrong-issuer": self._told("basic", f'issuer = "{self.peers.oidc}/"', opaque),
        }
        for fault in [*FAULTS, *ODDITIES, "slow"]:
            told[f"fault-{fault}"] = self._told(
                "faulty", f'token_endpoint = "{self.proxy.url}/{fault}"', opaque
            )
        return told

    def _told(self, name: str, source: str, request: str) -> str:
        client = CLIENTS[name]
        lines = [source, f'client_id = "{client.id}"', f'client_auth_method = "{client.method}"', request]
        if client.has_secret:
            lines.append(f'client_secret = "secret://peers/{name}-secret"')
        if client.key:
            lines += [f'private_key = "secret://peers/{name}-key"', f'key_id = "{name}"']
        return "\n".join(lines)

    def _write_files(self, upstreams: Upstreams) -> None:
        super()._write_files(upstreams)
        told, granted = "", ""
        for name, lines in self.providers().items():
            told += (
                f'\n[[providers]]\nidentifier = "provider://{name}"\nkind = "oauth2_client_credentials"\n{lines}\n'
                f'\n[[resources]]\nidentifier = "resource://{name}"\nupstream_url = "{self.server.url}"\n'
                f'scopes = ["orders:use"]\ncredential_provider = "provider://{name}"\n'
                'operation_enforcement = "transport_uniform"\n'
                'plugins = [{ name = "response_scrub", bodies = true }]\n'
            )
            granted += f'\n[grants."resource://{name}"]\napplication = "main"\n'
            granted += f'roles = {{ {APPLICATION} = ["orders:use"] }}\n'
        bundle = self.home / f"bundles/{ZONE}.toml"
        self._write(f"bundles/{ZONE}.toml", bundle.read_text() + told + granted)
        urls = [self.peers.oidc.removesuffix("/tenant"), self.peers.mock, self.proxy.url, self.server.url]
        kept = f'\n[secrets.peers]\nzones = ["{ZONE}"]\n'
        kept += f"hosts = {json.dumps([url.removeprefix('http://') for url in urls])}\n"
        for client in CLIENTS.values():
            if client.has_secret:
                kept += f'{client.name}-secret = "{client.secret}"\n'
            if client.key:
                kept += f"{client.name}-key = '''\n{client.pem}'''\n"
        self._write("secrets.toml", (self.home / "secrets.toml").read_text() + kept)
