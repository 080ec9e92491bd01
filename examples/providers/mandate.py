"""Prints a mandate for a client that keeps the key it was given: mandate.py RESOURCE SCOPE...

Needs the variables that `caracal env` prints and nothing but Python. The mandate is good more than once, for fifteen
minutes, and its resource must allow that (`reusable_mandates = true`). It hangs on a session of its own, whose id goes
to standard error: `caracal revoke --session ID` ends both.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

LIFETIME_S = 900


def post(url: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        sys.exit(f"mandate.py: {url} answered {refused.code}: {refused.read().decode()}")


def mandate(resource: str, scopes: list[str]) -> tuple[str, str]:
    """The mandate, and the session that it hangs on."""
    zone, application = os.environ["CARACAL_ZONE_ID"], os.environ["CARACAL_APPLICATION_ID"]

    def token(**more: str) -> str:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "zone_id": zone,
            "application_id": application,
            "client_secret": Path(os.environ["CARACAL_APP_CLIENT_SECRET_FILE"]).read_text().strip(),
            "resource": resource,
            **more,
        }
        url = f"{os.environ['CARACAL_STS_URL']}/oauth/2/token"
        return post(url, urllib.parse.urlencode(form).encode(), {})["access_token"]

    bearer = token(scope="agent:lifecycle")

    def coordinator(path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{os.environ['CARACAL_COORDINATOR_URL']}/zones/{zone}/{path}"
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        return post(url, json.dumps(body).encode(), headers)

    # Authority is handed from one session to another, so there are two.
    session = {"application_id": application, "labels": [application], "ttl_seconds": LIFETIME_S}
    source, target = (coordinator("agents", session)["agent_session_id"] for _ in range(2))
    handed = {
        "source_session_id": source,
        "target_session_id": target,
        "issuer_application_id": application,
        "receiver_application_id": application,
        "scopes": scopes,
        "ttl_seconds": LIFETIME_S,
        "constraints": {"resources": [resource]},
    }
    delegation = coordinator("delegations", handed)["delegation_edge_id"]
    minted = token(
        scope=" ".join(scopes),
        agent_session_id=target,
        delegation_edge_id=delegation,
        reusable="true",
        ttl_seconds=str(LIFETIME_S),
    )
    return minted, target


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    minted, session = mandate(sys.argv[1], sys.argv[2:])
    print(f"session {session}", file=sys.stderr)
    print(minted)
