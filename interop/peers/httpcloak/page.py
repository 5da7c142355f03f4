"""Fetch one page with httpcloak through a CONNECT-UDP proxy: a JSON object from standard input, one to its output.

A process for each page: httpcloak trusts what SSL_CERT_FILE names when the process starts, and a session of it keeps
the tunnel to its first target for all others.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from typing import Any

import httpcloak  # type: ignore[import-not-found]  # in a virtual environment of its own

__all__ = ["fetch"]


def fetch(url: str, proxy: str, seconds: float) -> dict[str, Any]:
    """Fetch a page.

    Args:
        url: the page.
        proxy: the relay, `masque://user:password@host:port`.
        seconds: when httpcloak gives up.

    Returns:
        `ok` or `error` of the driver's answer.
    """
    session = httpcloak.Session(
        preset="chrome-latest",
        http_version="h3",
        udp_proxy=proxy,
        timeout=math.ceil(seconds),
        retry=0,
        disable_ech=True,  # it would ask public resolvers for ECH's keys
    )
    with session:
        try:
            response = session.get(url)
        except httpcloak.HTTPCloakError as error:
            return {"error": str(error)}
    content = bytes(response.content)
    digest = hashlib.sha256(content).hexdigest()
    ok = {"status": response.status_code, "size": len(content), "sha256": digest, "protocol": response.protocol}
    return {"ok": ok}


if __name__ == "__main__":
    print(json.dumps(fetch(**json.load(sys.stdin))))
