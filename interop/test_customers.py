"""`examples/many-customers` as its page says: two customers behind one edge, and neither reaches the other."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from caracalai import AccessDenied, Caracal

from process import Process
from upstream import Upstream

EXAMPLE = Path(__file__).parent.parent / "examples/many-customers"
PROGRAMS = ("agent-acme", "agent-globex", "helper")


class Desk(Process):
    """The example, its programs with secrets, its upstream where the tests have one."""

    def __init__(self, home: Path, upstream: Upstream) -> None:
        shutil.copytree(EXAMPLE, home)
        super().__init__(home)
        for file in [home / "secrets.toml", home / "bundles/desk/resources.toml"]:
            file.write_text(file.read_text().replace("127.0.0.1:9000", upstream.url.removeprefix("http://")))
        (home / "secrets.toml").chmod(0o600)
        applications = home / "bundles/desk/applications.toml"
        text = applications.read_text()
        for program in PROGRAMS:
            line = self.run("secret", "new", "--secret-file", str(home / f"{program}.secret")).strip().splitlines()[-1]
            assert line.startswith("secrets = ["), line
            text = text.replace(f'id = "{program}"\nsecrets = []', f'id = "{program}"\n{line}')
        applications.write_text(text)
        self.listen_on_free_ports()

    def client(self, program: str, monkeypatch: pytest.MonkeyPatch) -> Caracal:
        """The SDK as one of the programs."""
        script = 'eval "$("$0" env --config "$1" --zone desk --app "$2" --secret-file "$3")" && env -0'
        shell = subprocess.run(
            ["bash", "-c", script, self.binary, str(self.config), program, str(self.home / f"{program}.secret")],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            timeout=60,
            check=True,
        )
        for pair in shell.stdout.split("\0"):
            name, _, value = pair.partition("=")
            if name.startswith("CARACAL_"):
                monkeypatch.setenv(name, value)
        return Caracal()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("customers") / "desk", upstream)
    desk.start()
    yield desk
    desk.stop()


def mandate(client: Caracal, resource: str, scope: str, label: str) -> str:
    """A mandate through a session with this label and a delegation to it."""
    held = client._app_mandate(resource, [scope], [label], 300)
    return client.config.exchanger.mint_mandate(
        resource=resource,
        scopes=[scope],
        session_id=held.target_session_id,
        delegation_id=held.delegation_id,
        cache=False,
    ).token


def used(desk: Desk, token: str, path: str) -> httpx.Response:
    return httpx.get(f"{desk.gateway}{path}", headers={"Authorization": f"Bearer {token}"})


def test_the_bundle_proves_the_customers_apart(desk: Desk) -> None:
    assert "all good: 11 passed" in desk.run("test", "--config", str(desk.config))


def test_each_agent_reaches_its_customer_with_that_customers_key(
    desk: Desk, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for customer in ("acme", "globex"):
        client = desk.client(f"agent-{customer}", monkeypatch)
        token = mandate(client, f"resource://crm/{customer}", "crm:read", f"agent-{customer}")
        answer = used(desk, token, f"/{customer}/contacts/1")
        assert answer.status_code == 200, answer.text
        assert upstream.received[-1].path == f"/crm/{customer}/contacts/1"
        assert upstream.received[-1].header("authorization") == f"Bearer the-crm-key-of-{customer}"


@pytest.mark.parametrize(("own", "other"), [("acme", "globex"), ("globex", "acme")])
def test_an_agent_gets_no_mandate_for_the_other_customer_and_its_own_opens_nothing_there(
    desk: Desk, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, own: str, other: str
) -> None:
    before = len(upstream.received)
    client = desk.client(f"agent-{own}", monkeypatch)
    for label in (f"agent-{own}", f"agent-{other}", "clerk"):
        with pytest.raises(AccessDenied, match="resource_not_granted"):
            mandate(client, f"resource://crm/{other}", "crm:read", label)
    token = mandate(client, f"resource://crm/{own}", "crm:read", f"agent-{own}")
    refused = used(desk, token, f"/{other}/contacts/1")
    assert refused.status_code in (401, 403), refused.text
    assert len(upstream.received) == before


@pytest.mark.parametrize(("own", "other"), [("acme", "globex"), ("globex", "acme")])
def test_a_helper_stays_with_the_customer_its_session_is_for(
    desk: Desk, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, own: str, other: str
) -> None:
    client = desk.client("helper", monkeypatch)
    token = mandate(client, "resource://files", f"files:{own}", f"customer:{own}")
    assert used(desk, token, f"/files/{own}/plan").status_code == 200
    before = len(upstream.received)
    with pytest.raises(AccessDenied, match="confinement_violation"):
        mandate(client, "resource://files", f"files:{other}", f"customer:{own}")
    token = mandate(client, "resource://files", f"files:{own}", f"customer:{own}")
    refused = used(desk, token, f"/files/{other}/plan")
    assert (refused.status_code, refused.json()["error"]) == (403, "operation_not_permitted")
    assert len(upstream.received) == before
