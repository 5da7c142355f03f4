"""`relay serve`, `relay dev` and `relay check`: a relay, and what it would do."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType

import anyio

from relay.auth import describe_tokens, generate_key, preshared_entry
from relay.cli.options import add_settings, format_address, load
from relay.cli.policy import add_target, explain_target
from relay.egress import count_pools
from relay.policy import read_rules
from relay.quic.engine import EngineError
from relay.server import Server, Startup, prepare
from relay.settings import (
    Settings,
    SettingsError,
    describe_resolver,
    describe_settings,
    dump_settings,
    probe_capabilities,
)
from relay.telemetry import CounterMetrics, LogFormat, LogLevel, configure_logging, get_logger

__all__ = ["add_check", "add_dev", "add_serve"]

_log = get_logger()
_INTERRUPTED = 130


def add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `relay serve`."""
    serve = commands.add_parser("serve", help="serve clients until SIGTERM; SIGHUP reloads what is in files")
    add_settings(serve)
    serve.set_defaults(command=_serve)


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `relay check`."""
    check = commands.add_parser("check", help="print the effective settings, without secrets, and start nothing")
    add_settings(check)
    check.add_argument("--explain", action="store_true", help="print what every setting means")
    add_target(check)
    check.set_defaults(command=_check)


def add_dev(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `relay dev`."""
    dev = commands.add_parser("dev", help="serve on this machine with a fresh key, and say what to try")
    dev.add_argument("--certificates", type=Path, default=Path("certs"), metavar="DIR")
    add_settings(dev)
    dev.set_defaults(command=_dev)


def _check(options: argparse.Namespace) -> int:
    if options.explain:
        print(describe_settings())
        return 0
    settings = load(options)
    if options.target is not None:
        return explain_target(settings, options)
    rules = read_rules(settings.policy)
    print(dump_settings(settings))
    if settings.policy.file is not None:
        print(f"# policy: {len(rules)} rules in all, {settings.policy.file} was read")
    if settings.egress.file is not None or settings.egress.pools:
        print(f"# egress: {count_pools(settings.egress)} pools in all")
    for line in describe_resolver(settings):
        print(f"# {line}")
    found = asdict(probe_capabilities())
    print("# the files of tls and quic named above were not looked at: `relay serve` reads them when it starts")
    for line in describe_tokens(settings.tokens):
        print(f"# {line}")
    print("# this machine: " + ", ".join(f"{name} {'yes' if has else 'no'}" for name, has in found.items()))
    return 0


def _serve(options: argparse.Namespace) -> int:
    return _run_server(partial(load, options), hint=None)


def _dev(options: argparse.Namespace) -> int:
    folder: Path = options.certificates
    if not (folder / "server.pem").exists():
        command = f"python -m certs.generate --out {shlex.quote(str(folder))}"
        raise SettingsError(f"{folder} holds no server.pem; make it, in a checkout of masque-relay, with: {command}")
    key = generate_key()
    read = partial(
        load,
        options,
        {
            "tls.certificate": str(folder / "server.pem"),
            "tls.private_key": str(folder / "server.key"),
            "auth.preshared": f'["{preshared_entry(key)}"]',
            "policy.allow": '["127.0.0.0/8", "::1/128"]',
        },
    )
    return _run_server(read, hint=partial(_hint, folder, key))


def _hint(folder: Path, key: str, address: str) -> str:
    """What to type to try the relay; with whole paths where it is not typed in this folder."""
    place, path = "this folder", Path(sys.executable)
    if not Path("interop/origin.py").is_file():
        place, folder = "a checkout of masque-relay", folder.absolute()
    elif path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    python = shlex.quote(str(path))
    relay = f"{shlex.quote(str(path.parent / 'relay'))} forward"
    common = f"--relay {shlex.quote(f'https://{address}')} --ca {shlex.quote(str(folder / 'ca.pem'))} --key={key}"
    return f"""
Targets on this machine are allowed; that is for trying it out. In other terminals, in {place}:

  an origin to talk to, a page on TCP port 8000 and an echo on UDP port 8001:
    {python} -m interop.origin

  TCP through the relay:
    {relay} tcp 127.0.0.1:8000 --listen 127.0.0.1:8080 {common}
    curl http://127.0.0.1:8080/

  UDP through the relay:
    {relay} udp 127.0.0.1:8001 --listen 127.0.0.1:8081 {common}
    bash -c 'exec 3<>/dev/udp/127.0.0.1/8081; echo hello >&3; head -n 1 <&3'

Ctrl-C stops the relay. `make demo` does all of this by itself.
"""


def _run_server(read: Callable[[], Settings], hint: Callable[[str], str] | None) -> int:
    settings = read()
    telemetry = settings.telemetry
    configure_logging(
        LogLevel(telemetry.level), LogFormat(telemetry.format), debug_addresses=telemetry.debug_addresses
    )
    sys.excepthook = _report_crash
    admits = settings.auth.open or settings.auth.preshared or settings.auth.basic
    if not admits and not settings.tls.clients and not settings.tokens.issuers:
        raise SettingsError("auth: nobody could use this relay; set auth.preshared (`relay key` makes an entry)")
    try:
        startup = prepare(settings)
    except OSError as error:
        listen = settings.listen
        raise SettingsError(f"listen: cannot use {listen.host} port {listen.port}: {error.strerror}") from error
    if settings.auth.open:
        _log.warning("open_relay", setting="auth.open")
    return asyncio.run(_serve_until_told(startup, read, hint))


def _report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A crash's text may quote what a client sent, so only its kind and place are told."""
    frame = traceback.extract_tb(trace)[-1] if trace is not None else None
    place = f"{Path(frame.filename).name}:{frame.lineno}" if frame is not None else "unknown"
    _log.critical("crashed", exception_type=kind.__name__, place=place)


async def _serve_until_told(startup: Startup, read: Callable[[], Settings], hint: Callable[[str], str] | None) -> int:
    """Serve until a signal; returns the exit code."""
    server = Server(startup, CounterMetrics())
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.run())
        others = [
            tasks.create_task(_obey_signals(server, serving, read)),
            tasks.create_task(_announce(server, startup.settings, hint)),
        ]
        await asyncio.wait([serving])
        for task in others:
            task.cancel()
    if serving.cancelled():
        return _INTERRUPTED
    _log.info("stopped")
    return 0


async def _announce(server: Server, settings: Settings, hint: Callable[[str], str] | None) -> None:
    await server.is_ready.wait()
    address = format_address(server.address)
    print(f"relay: serving HTTP/3 on {address} with {settings.quic.engine}", flush=True)
    if hint is not None:
        print(hint(address), flush=True)


async def _obey_signals(server: Server, serving: asyncio.Task[None], read: Callable[[], Settings]) -> None:
    """SIGHUP reloads what is in files; the first SIGTERM or SIGINT drains, the second cuts what is left."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        stopping = False
        async for number in received:
            if number == signal.SIGHUP:
                try:
                    await _reload(server, read)
                except Exception as error:  # noqa: BLE001 - a file must not end the relay, whatever is in it
                    _log.error("reload_failed", exception_type=type(error).__name__)
            elif stopping:
                serving.cancel()
                return
            else:
                stopping = True
                _log.info("draining")
                server.stop()


async def _reload(server: Server, read: Callable[[], Settings]) -> None:
    """Read certificate, keys, policy and egress pools again. What cannot be used changes nothing."""
    try:
        server.reload_certificate()
        _log.info("certificate_reloaded")
    except EngineError as error:
        _log.error("certificate_refused", reason=str(error))
    try:
        if await server.reload_keys():
            _log.info("token_keys_reloaded")
    except SettingsError as error:
        _log.error("token_keys_refused", reason=str(error))
    try:
        settings = await asyncio.to_thread(read)
        _log.info("policy_reloaded", count=await server.reload_policy(settings.policy))
    except SettingsError as error:
        _log.error("policy_refused", reason="; ".join(str(error).splitlines()))
    if server.settings.egress.file is not None:
        try:
            await server.reload_egress()
            _log.info("egress_reloaded")
        except SettingsError as error:
            _log.error("egress_refused", reason="; ".join(str(error).splitlines()))
