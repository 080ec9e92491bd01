"""`docs/guides/recipes.md` and `examples/providers`: every folder is good, and every snippet does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from apis import WORDS
from peers import JWT_BEARER, Client, Peers
from peers_edge import RSA, ResourceServer
from process import Process
from upstreams import Upstreams

ROOT = Path(__file__).parent.parent
PROVIDERS = ROOT / "examples/providers"
FOLDERS = sorted(folder.name for folder in PROVIDERS.iterdir() if (folder / "caracal.toml").exists())
GUIDE = (ROOT / "docs/guides/recipes.md").read_text()


@dataclass(frozen=True)
class Recipe:
    """A section of the guide: where its folder's upstream is here, and what its snippet prints."""

    section: str
    folder: str
    upstream: str
    prints: str

    def blocks(self) -> tuple[str, str]:
        """What is typed into the shell, and the program."""
        section = re.search(rf"^## {re.escape(self.section)}\n(.*?)(?=^## |\Z)", GUIDE, re.M | re.S)
        assert section, self.section
        lines = re.findall(r"^(?:    .*|)\n", section[1], re.M)
        code = textwrap.dedent("".join(lines)).strip("\n").splitlines()
        shell = [line for line in code if line.startswith("export ")]
        return "\n".join(shell), "\n".join(line for line in code if line not in shell)


TEXT = "".join(WORDS)
RECIPES = [
    Recipe("OpenAI", "openai", "apis", TEXT),
    Recipe("Anthropic", "anthropic", "apis", TEXT),
    Recipe("Azure OpenAI", "azure-openai", "apis", TEXT),
    Recipe("GitHub", "github", "apis", "t\nt"),
    Recipe("Slack", "slack", "apis", "hello"),
    Recipe("Jira", "jira", "apis", "the edge is down"),
    Recipe("Stripe", "stripe", "apis", "cus_1\ncus_2"),
    Recipe("An internal API", "internal-api", "echo", "/orders/1"),
    Recipe("An internal API behind OAuth", "oauth-api", "oauth", "/items/1"),
    Recipe("A Google service account", "google-service-account", "google", "/calendar/v3/calendars/team/events"),
    Recipe("An MCP server", "mcp-server", "mcp", "5"),
]


# The only secret whose form the check knows; a key that anybody can read is no example of one.
NO_KEY = "put the private key here\n"
ROBOT = Client("robot", "none", RSA, PrivateFormat.PKCS8, JWT_BEARER)


def copied(folder: str, home: Path) -> Path:
    """As the guide says: a copy whose secrets only its owner can read, and a key where one is asked for."""
    shutil.copytree(PROVIDERS / folder, home)
    home.chmod(0o700)
    secrets = home / "secrets.toml"
    secrets.chmod(0o600)
    secrets.write_text(secrets.read_text().replace(NO_KEY, ROBOT.pem))
    return home


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_passes_the_check_and_its_own_tests(folder: str, tmp_path: Path) -> None:
    process = Process(copied(folder, tmp_path / folder))
    process.run("check", "--config", str(process.config))
    told = process.run("test", "--config", str(process.config))
    assert "all good: 2 passed" in told


def test_every_folder_has_its_recipe_and_every_recipe_its_section() -> None:
    # A connection needs its owner at a browser; the guide of providers shows how, and `test_consents.py` does it.
    assert sorted([*(recipe.folder for recipe in RECIPES), "connected-account"]) == FOLDERS
    sections = re.findall(r"^## (.*)$", GUIDE, re.M)
    assert sections == ["Once for each", *(recipe.section for recipe in RECIPES)]


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.folder)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


@pytest.fixture
def edited(recipe: Recipe, tmp_path: Path, upstreams: Upstreams) -> Iterator[dict[str, str]]:
    """What a reader writes instead: the servers that are here, and where there is one, the client they know."""
    bundle = (PROVIDERS / recipe.folder / "bundles/team.toml").read_text()
    upstream = re.search(r'upstream_url = "https://([^"/]+)"', bundle)
    assert upstream
    host = upstream[1]
    if recipe.upstream == "google":
        auditor = Client("auditor")
        peers = Peers(tmp_path / "peers.log", [ROBOT, auditor])
        server = ResourceServer(peers, auditor)
        yield {
            f"https://{host}": server.url,
            f'"{host}"': f'"{server.address}"',
            "https://oauth2.googleapis.com/token": f"{peers.oidc}/token",
            '"oauth2.googleapis.com"': f'"{urlsplit(peers.oidc).netloc}"',
            "robot@project.iam.gserviceaccount.com": ROBOT.id,
            "put the key's id here": ROBOT.name,
        }
        server.close()
        peers.close()
        return
    if recipe.upstream != "oauth":
        address = getattr(upstreams, recipe.upstream).address
        yield {f"https://{host}": f"http://{address}", f'"{host}"': f'"{address}"'}
        return
    client = Client("recipe")
    peers = Peers(tmp_path / "peers.log", [client])
    server = ResourceServer(peers, client)
    yield {
        f"https://{host}": server.url,
        f'"{host}"': f'"{server.address}"',
        "https://id.internal.example/realms/internal": peers.oidc,
        '"id.internal.example"': f'"{urlsplit(peers.oidc).netloc}"',
        '"caracal-edge"': f'"{client.id}"',
        "put the real secret here": client.secret,
    }
    server.close()
    peers.close()


def replaced(text: str, edited: dict[str, str]) -> str:
    for old, new in edited.items():
        text = text.replace(old, new)
    return text


@pytest.fixture
def served(recipe: Recipe, tmp_path: Path, edited: dict[str, str]) -> Iterator[Process]:
    """The folder with a secret for its application, an upstream that is here, and ports that are free."""
    process = Process(copied(recipe.folder, tmp_path / recipe.folder))
    line = process.run("secret", "new", "--secret-file", str(process.home / "agent.secret"))
    bundle, secrets = process.home / "bundles/team.toml", process.home / "secrets.toml"
    bundle.write_text(replaced(bundle.read_text().replace("secrets = []\n", line), edited))
    secrets.write_text(replaced(secrets.read_text(), edited))
    process.listen_on_free_ports()
    process.start()
    yield process
    process.stop()


def test_the_snippet_does_what_it_says(recipe: Recipe, served: Process, edited: dict[str, str]) -> None:
    exports, program = recipe.blocks()
    exports = exports.replace("http://127.0.0.1:8081", served.gateway)
    (served.home / "program.py").write_text(replaced(program, edited))
    if recipe.upstream in ("oauth", "google"):
        provider = "provider://oauth-api" if recipe.upstream == "oauth" else "provider://google"
        served.run("providers", "test", provider, "--config", str(served.config))
    script = f"""
        set -eu
        cd "{served.home}"
        eval "$("{served.binary}" env --config caracal.toml --app agent --secret-file agent.secret)"
        mandate() {{ python3 "{PROVIDERS}/mandate.py" "$@"; }}
        {exports}
        python3 program.py
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    clean = {"PATH": path, "HOME": str(served.home)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=clean, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{recipe.prints}\n"), done.stderr
