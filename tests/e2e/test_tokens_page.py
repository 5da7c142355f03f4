"""docs/tokens.md: the five commands to try tokens on one machine run as they are printed."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.client import TokenFile
from tests.e2e.rig import command_environment
from tests.relay.rig import PATIENCE, tcp_origin

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
START = 20.0


def printed() -> list[str]:
    """The first block of commands of the page's part for trying out."""
    text = (ROOT / "docs/tokens.md").read_text(encoding="utf-8").partition("\n## Try it on this machine\n")[2]
    return text.partition("```sh\n")[2].partition("```")[0].splitlines()


async def start(folder: Path, line: str, *more: str) -> asyncio.subprocess.Process:
    """Start a command of the page, with this checkout's code."""
    command, *arguments = shlex.split(line)
    assert command == ".venv/bin/relay"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "relay",
        *arguments,
        *more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={**command_environment(), "PYTHONPATH": os.fspath(ROOT)},
    )


async def run(folder: Path, line: str) -> None:
    """Run a command that ends."""
    process = await start(folder, line)
    async with asyncio.timeout(START):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@asynccontextmanager
async def serving(folder: Path, line: str, announced: str, *more: str) -> AsyncIterator[str]:
    """Run a command that goes on; yields the port that it announces."""
    process = await start(folder, line, *more)
    assert process.stdout is not None
    try:
        output = ""
        async with asyncio.timeout(START):
            while (found := re.search(announced, output)) is None:
                piece = await process.stdout.readline()
                assert piece, output
                output += piece.decode()
        yield found[1]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.mark.slow
async def test_the_five_commands_of_the_page(tmp_path: Path, certificates: Path) -> None:
    """Only ports are others: free ones."""
    (tmp_path / "certs").symlink_to(certificates)
    key, issuer, relay, fetch, forward = printed()
    await run(tmp_path, key)
    async with (
        tcp_origin() as origin,
        serving(tmp_path, issuer, r"at https://127\.0\.0\.1:(\d+)\n", "--listen=127.0.0.1:0") as issuer_port,
        serving(
            tmp_path, relay.replace("4440", issuer_port), r"serving HTTP/3 on \S+:(\d+) ", "--set=listen.port=0"
        ) as relay_port,
    ):
        ports = {"4440": issuer_port, "4433": relay_port, "8000": str(origin.port), "8080": "0"}
        for page_port, port in ports.items():
            fetch, forward = fetch.replace(f":{page_port}", f":{port}"), forward.replace(f":{page_port}", f":{port}")
        await run(tmp_path, fetch)
        file = TokenFile(tmp_path / "tokens.txt")
        assert sum(file.count().values()) == 10
        async with serving(tmp_path, forward, r"forwarding tcp \S+:(\d+) to") as port:
            for spent in range(1, 4):
                reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
                writer.write(b"ping")
                writer.write_eof()
                async with asyncio.timeout(PATIENCE):
                    assert await reader.read() == b"ping"
                writer.close()
                assert sum(file.count().values()) == 10 - spent
