"""The driver of httpcloak: requests from standard input, answers to standard output, one JSON object to a line.

httpcloak only fetches, so `fetch` is the one verb with a network behind it. Each fetch is a process (page.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import traceback
from base64 import b64decode
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

__all__ = ["Driver", "DriverError"]

_PAGE = Path(__file__).with_name("page.py")
_TEMPLATE = "/.well-known/masque/udp/{target_host}/{target_port}/"
"The template that httpcloak uses; it knows no other."
_PATIENCE = 10.0
"The timeout of a verb that came without."

Values = dict[str, Any]


class DriverError(Exception):
    """A verb could not be carried out."""


class Driver:
    """The verbs that httpcloak leaves."""

    def __init__(self) -> None:
        self._relay: tuple[str, str] | None = None
        "Its URL, and the PEM file with the authority to trust."

    async def answer(self, line: bytes) -> Values:
        """Carry out a request and return its answer, whatever happens."""
        number = None
        try:
            request = json.loads(line)
            number = request["id"]
            match request["verb"]:
                case "connect":
                    return {"id": number, "ok": self._connect(request)}
                case "fetch":
                    return {"id": number, **await self._fetch(request)}
                case "close":
                    self._relay = None
                    return {"id": number, "ok": {}}
                case verb:
                    return {"id": number, "error": f"httpcloak has nothing for the verb {verb}"}
        except DriverError as error:
            return {"id": number, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is an answer, and the details go to the log
            traceback.print_exc()
            return {"id": number, "error": f"{type(error).__name__}: {error}"}

    def _connect(self, request: Values) -> Values:
        """Take note of the relay; httpcloak itself connects when it fetches."""
        if request["template"] != _TEMPLATE:
            raise DriverError("httpcloak knows the default template only (RFC 9298 §3)")
        if not request.get("datagrams", True):
            raise DriverError("httpcloak has DATAGRAM frames only")
        self._relay = (request["url"], request["ca"])
        return {}

    async def _fetch(self, request: Values) -> Values:
        if self._relay is None:
            raise DriverError("not connected")
        if request["via"] != "udp":
            raise DriverError("httpcloak has no CONNECT over HTTP/3")
        relay_url, relay_ca = self._relay
        seconds = float(request.get("timeout", _PATIENCE))
        asked = {
            "url": request["url"],
            "proxy": _proxy_url(relay_url, request.get("headers") or []),
            "seconds": seconds,
        }
        with tempfile.TemporaryDirectory() as folder:
            bundle = os.path.join(folder, "authorities.pem")
            _join_files([relay_ca, request["ca"]], bundle)
            environ = {**os.environ, "SSL_CERT_FILE": bundle, "SSL_CERT_DIR": folder}
            try:
                async with asyncio.timeout(seconds):
                    answer = await _run_page(json.dumps(asked).encode(), environ)
            except TimeoutError:
                raise DriverError(f"timeout: fetch took more than {seconds:g} s") from None
        return answer


async def _run_page(asked: bytes, environ: dict[str, str]) -> Values:
    """Run page.py; its end is ours, also when we are cancelled."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(_PAGE),
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(asked)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DriverError(f"httpcloak's process ended with {process.returncode}")
    answer: Values = json.loads(output)
    return answer


def _proxy_url(relay_url: str, headers: list[list[str]]) -> str:
    """Write the relay's URL as httpcloak takes it, with Basic credentials (RFC 7617 §2) as its user and password."""
    userinfo = ""
    for name, value in headers:
        scheme, _, credentials = value.partition(" ")
        if name.lower() != "proxy-authorization" or scheme.lower() != "basic":
            raise DriverError(f"httpcloak can send Basic credentials and no other field: {name}")
        user, _, password = b64decode(credentials).decode().partition(":")
        userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}@"
    return f"masque://{userinfo}{urlsplit(relay_url).netloc}"


def _join_files(sources: list[str], target: str) -> None:
    """Write one file with the content of all; httpcloak's legs cannot trust different authorities."""
    Path(target).write_text("\n".join(Path(source).read_text() for source in sources))


def _write(message: Values) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


async def _run() -> None:
    """Answer requests until standard input ends; what is not answered then is given up."""
    driver = Driver()
    _write({"peer": "httpcloak", "version": f"httpcloak {version('httpcloak')}", "features": ["fetch-udp"]})

    async def answer(line: bytes) -> None:
        _write(await driver.answer(line))

    async with asyncio.TaskGroup() as tasks:
        running: set[asyncio.Task[None]] = set()
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            task = tasks.create_task(answer(line))
            running.add(task)
            task.add_done_callback(running.discard)
        for task in running:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(_run())
