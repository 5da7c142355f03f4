"""The small commands, the forwarder and the development relay, as processes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay import __version__
from relay.auth import preshared_entry, scrypt_digest
from relay.cli import make_parser
from relay.quic.development import write_certificates
from relay.settings import parse_basic_entry
from tests.e2e.command import FOLDER, run
from tests.e2e.conftest import StartProcess
from tests.e2e.origins import tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import KEY, command_environment, running_process, start_command


class TestSmallCommands:
    def test_version(self) -> None:
        done = run("--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"masque-relay {__version__}\n", "")

    def test_key_and_its_entry_belong_together(self) -> None:
        done = run("key")
        assert (done.returncode, done.stderr) == (0, "")
        found = re.fullmatch(r'key, for the client: +(\S+)\nentry for auth\.preshared: +"(\S+)"\n', done.stdout)
        assert found is not None, done.stdout
        assert preshared_entry(found[1]) == found[2]

    def test_basic_entry_from_a_pipe(self) -> None:
        done = run("key", "--basic", "ann", given="secret\n")
        assert (done.returncode, done.stderr) == (0, "")
        found = re.fullmatch(r'entry for auth\.basic: "(ann:scrypt:\S+)"\n', done.stdout)
        assert found is not None, done.stdout
        entry = parse_basic_entry(found[1])
        assert scrypt_digest(b"secret", entry.salt, entry.cost) == entry.digest

    @pytest.mark.parametrize(("again", "code"), [("secret", 0), ("secrte", 2)])
    def test_terminal_is_asked_twice(self, again: str, code: int) -> None:
        text, ended = at_a_terminal("key", "--basic", "ann", answers=["secret", again])
        assert ended == code, text
        assert text.count("password: ") == text.count("again: ") == 1
        assert ("the two passwords differ" in text) == (code == 2)
        assert again not in text, "passwords are not echoed"

    def test_certificate_for_any_name(self, tmp_path: Path) -> None:
        names = ["relay.example", "*.relay.example", "192.0.2.1", "2001:db8::1"]
        assert run("--out", str(tmp_path), *names, module="certs.generate").returncode == 0
        assert "python -m certs.generate" in run("--help", module="certs.generate").stdout

    def test_check_says_that_files_are_not_looked_at(self, tmp_path: Path) -> None:
        done = run("check", f"--set=tls.certificate={tmp_path / 'none.pem'}")
        assert done.returncode == 0
        assert "were not looked at: `relay serve` reads them when it starts" in done.stdout

    def test_check_prints_settings_that_can_be_read_back(self, tmp_path: Path, good: list[str]) -> None:
        done = run("check", *good, "--set=limits.streams=77", environ={"RELAY_IDENTITY": "relay-one"})
        assert (done.returncode, done.stderr) == (0, "")
        found = tomllib.loads(done.stdout)
        assert found["limits"]["streams"] == 77
        assert found["identity"] == "relay-one"
        assert preshared_entry(KEY) not in done.stdout

    def test_check_looks_at_the_keys_of_issuers(self, tmp_path: Path) -> None:
        (tmp_path / "seed").write_bytes(b"\x80" * 48)
        issuers = [
            {"name": "issuer.example", "keys": [str(tmp_path / "seed")], "types": [1]},
            {"name": "other.example", "keys": [str(tmp_path / "none")]},
        ]
        done = run("check", f"--set=tokens.issuers={json.dumps(issuers)}", "--set=tokens.store.kind=memory")
        assert done.returncode == 0
        assert "# tokens.issuers[0]: issuer.example, keys in its files: 1 of type 1\n" in done.stdout
        assert "# tokens.issuers[1]: other.example, CANNOT BE USED: tokens.issuers[1].keys[0]: cannot" in done.stdout
        assert "# tokens.store: memory, forgotten at a restart\n" in done.stdout
        assert tomllib.loads(done.stdout)["tokens"]["issuers"][1]["name"] == "other.example"

    def test_check_explains_every_setting(self) -> None:
        done = run("check", "--explain")
        assert (done.returncode, done.stderr) == (0, "")
        assert "limits.write_stall (default " in done.stdout

    def test_check_into_a_closed_pipe(self) -> None:
        command = f"{sys.executable} -m relay check --explain | head -n 1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=FOLDER,
            env=command_environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def at_a_terminal(*arguments: str, answers: Sequence[str]) -> tuple[str, int]:
    """Run `python -m relay` at a terminal, answer its questions, and return what it showed and its exit code."""
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "relay", *arguments]
    process = subprocess.Popen(
        command,
        cwd=FOLDER,
        env=command_environment(),
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    text = ""
    left = list(answers)
    try:
        while data := os.read(terminal, 1000):
            text += data.decode()
            if text.endswith(": ") and left:
                os.write(terminal, left.pop(0).encode() + b"\n")
    except OSError:  # how Linux tells that nobody has the terminal open any more
        pass
    finally:
        os.close(terminal)
        code = process.wait(20)
    return text, code


@asynccontextmanager
async def forwarder(
    kind: str, target: str, relay_url: str, *options: str
) -> AsyncIterator[tuple[tuple[str, int], asyncio.subprocess.Process]]:
    """Run `relay forward` until it says where it listens; stopped by SIGTERM."""
    arguments = ("forward", kind, target, "--relay", relay_url, *options)
    process = await start_command(*arguments, stderr=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            line = (await process.stdout.readline()).decode()
        found = re.fullmatch(rf"relay: forwarding {kind} (.+):(\d+) to {re.escape(target)}\n", line)
        assert found is not None, line
        yield (found[1], int(found[2])), process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            rest, errors = await process.communicate()
        assert (process.returncode, rest) == (0, b""), errors.decode()


@pytest.mark.anyio
class TestForward:
    async def test_tcp(self, start_process: StartProcess, tmp_path: Path, engine: str) -> None:
        key_file = tmp_path / "key"
        key_file.write_text(KEY + "\n")
        async with tcp_echo() as port, start_process() as relay:
            options = ("--ca", str(relay.certificates / "ca.pem"), "--key-file", str(key_file), "--engine", engine)
            async with forwarder("tcp", f"127.0.0.1:{port}", relay.url, *options) as (address, _):
                blob = os.urandom(300_000)

                async def exchange() -> bytes:
                    reader, writer = await asyncio.open_connection(*address)
                    try:
                        writer.write(blob)
                        writer.write_eof()
                        return await reader.read()
                    finally:
                        writer.close()
                        await writer.wait_closed()

                async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
                    users = [tasks.create_task(exchange()) for _ in range(5)]
                assert all(user.result() == blob for user in users)

    async def test_udp(self, start_process: StartProcess, engine: str) -> None:
        async with udp_origin(echoes=True) as origin, start_process() as relay:
            options = ("--ca", str(relay.certificates / "ca.pem"), "--key", KEY, "--engine", engine)
            async with forwarder("udp", f"127.0.0.1:{origin.port}", relay.url, *options) as (address, _):
                loop = asyncio.get_running_loop()
                for user in range(3):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.setblocking(False)
                        sock.connect(address)
                        for size in (1, 0, 1200):
                            payload = bytes([user]) * size
                            await loop.sock_sendall(sock, payload) if size else sock.send(b"")
                            async with asyncio.timeout(5):
                                assert await loop.sock_recv(sock, 2000) == payload
                assert len(origin.senders) == 3, "each local sender has a tunnel of its own"

    async def test_refusal_is_said_and_ends_the_connection(self, certificates: Path) -> None:
        async with tcp_listener() as origin, running_process(certificates, "qh3") as relay:
            port = origin.port
            origin.close()
            options = ("--ca", str(certificates / "ca.pem"), "--key", KEY)
            async with forwarder("tcp", f"127.0.0.1:{port}", relay.url, *options) as (address, process):
                reader, writer = await asyncio.open_connection(*address)
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
                assert process.stderr is not None
                line = (await process.stderr.readline()).decode()
                assert line == "relay: the relay answered 502 (masque-relay;error=connection_refused)\n"

    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    async def test_wrong_key(self, certificates: Path, kind: str) -> None:
        async with running_process(certificates, "qh3") as relay:
            options = ("--ca", str(certificates / "ca.pem"), "--key=wrong")
            async with forwarder(kind, "127.0.0.1:9", relay.url, *options) as (address, process):
                form = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
                with socket.socket(socket.AF_INET, form) as user:
                    user.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(user, address)
                    await asyncio.get_running_loop().sock_sendall(user, b"x")
                    assert process.stderr is not None
                    async with asyncio.timeout(5):
                        line = (await process.stderr.readline()).decode()
        assert re.fullmatch(r"relay: the relay answered 407( \(.*\))?; is the key right\?\n", line), line

    async def test_certificate_that_is_not_trusted(self, certificates: Path, tmp_path: Path) -> None:
        write_certificates(tmp_path, ["localhost"])
        async with running_process(certificates, "qh3") as relay:
            for library in ("qh3", "aioquic"):
                options = ("--ca", str(tmp_path / "ca.pem"), "--key", KEY, "--engine", library)
                process = await start_command(
                    "forward", "tcp", "127.0.0.1:1", "--relay", relay.url, *options, stderr=asyncio.subprocess.PIPE
                )
                output, errors = await process.communicate()
                assert (process.returncode, output) == (2, b"")
                assert len(errors.splitlines()) == 1, errors.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["certs", "a{b}", "a {address}'s"])
async def test_development_relay_says_how_to_try_it(certificates: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(certificates, folder)
    process = await start_command("dev", "--certificates", str(folder), "--set=listen.port=0")
    assert process.stdout is not None
    try:
        text = ""
        async with asyncio.timeout(15):
            while "Ctrl-C" not in text:
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            await process.communicate()
    assert process.returncode == 0
    assert "relay forward tcp 127.0.0.1:8000" in text
    (hint,) = [hint for hint in text.splitlines() if "forward tcp" in hint]
    options = make_parser().parse_args(shlex.split(hint)[1:])
    assert options.ca == folder / "ca.pem"
    assert f"serving HTTP/3 on {options.relay.removeprefix('https://')} with" in text
    assert len(options.key) >= 40
    assert f"--key={options.key}" in hint


def test_private_key_is_for_its_owner_only(certificates: Path) -> None:
    assert stat.S_IMODE((certificates / "server.key").stat().st_mode) == 0o600
