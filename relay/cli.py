"""The command `relay`: serve, check, key, forward, dev.

Every mistake of the caller is one readable line on standard error and exit code 2, before anything starts.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType

import anyio

from relay import __version__
from relay.auth import basic_entry, check_user, generate_key, preshared_entry
from relay.client import ClientError, RelayOptions, TcpForwarder, UdpForwarder
from relay.quic.engine import Address, EngineError, EngineName
from relay.server import Server, Startup, prepare
from relay.settings import (
    Settings,
    SettingsError,
    describe_settings,
    dump_settings,
    load_settings,
    probe_capabilities,
)
from relay.telemetry import CounterMetrics, LogFormat, LogLevel, configure_logging, get_logger

__all__ = ["main"]

_log = get_logger()
_USAGE_ERROR = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        command = options.command
        result: int = command(options)
        return result
    except (SettingsError, EngineError, ClientError) as error:
        for line in str(error).splitlines():
            print(f"relay: {line}", file=sys.stderr)
        return _USAGE_ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit flushes into the closed pipe
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="relay", description="A privacy relay's second hop.")
    parser.add_argument("--version", action="version", version=f"masque-relay {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve clients until SIGTERM; SIGHUP reloads the certificate")
    _add_settings(serve)
    serve.set_defaults(command=_serve)

    check = commands.add_parser("check", help="print the effective settings, without secrets, and start nothing")
    _add_settings(check)
    check.add_argument("--explain", action="store_true", help="print what every setting means")
    check.set_defaults(command=_check)

    key = commands.add_parser("key", help="make a key for a client and its entry for auth.preshared")
    key.add_argument(
        "--basic",
        metavar="USER",
        help="make an entry for auth.basic instead; asks for the password, or reads it from a pipe",
    )
    key.set_defaults(command=_key)

    forward = commands.add_parser("forward", help="a local port that leads through a relay")
    forward.add_argument("kind", choices=("tcp", "udp"))
    forward.add_argument("target", metavar="HOST:PORT", help="where the relay should connect to")
    forward.add_argument("--listen", metavar="ADDR:PORT", default="127.0.0.1:0", help="local port; 0 takes any")
    forward.add_argument("--relay", metavar="URL", required=True, help="https://host:port")
    forward.add_argument("--key", help="a preshared key; visible in the list of processes, so rather --key-file")
    forward.add_argument("--key-file", type=Path, metavar="FILE", help="a file that holds the preshared key")
    forward.add_argument("--ca", type=Path, metavar="FILE", help="PEM file with the authority to trust")
    forward.add_argument("--insecure", action="store_true", help="accept any certificate of the relay; for tests")
    forward.add_argument("--engine", choices=[name.value for name in EngineName], default=EngineName.QH3.value)
    forward.set_defaults(command=_forward)

    dev = commands.add_parser("dev", help="serve on this machine with a fresh key, and say what to try")
    dev.add_argument("--certificates", type=Path, default=Path("certs"), metavar="DIR")
    _add_settings(dev)
    dev.set_defaults(command=_dev)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one setting, stronger than file and environment",
    )


def _load(options: argparse.Namespace, defaults: dict[str, str] | None = None) -> Settings:
    overrides = dict(defaults or {})
    for item in options.set:
        name, separator, value = item.partition("=")
        if not separator:
            raise SettingsError(f"--set {name}: must be NAME=VALUE")
        overrides[name] = value
    return load_settings(options.config, os.environ, overrides)


def _check(options: argparse.Namespace) -> int:
    if options.explain:
        print(describe_settings())
        return 0
    settings = _load(options)
    print(dump_settings(settings))
    found = asdict(probe_capabilities())
    print(
        "# the files named above, certificate and keys, were not looked at: `relay serve` reads them when it starts"
    )
    print("# this machine: " + ", ".join(f"{name} {'yes' if has else 'no'}" for name, has in found.items()))
    return 0


def _key(options: argparse.Namespace) -> int:
    if options.basic is not None:
        print(f'entry for auth.basic: "{_ask_for_entry(options.basic)}"')
        return 0
    key = generate_key()
    print(f"key, for the client:       {key}")
    print(f'entry for auth.preshared:  "{preshared_entry(key)}"')
    return 0


def _ask_for_entry(user: str) -> str:
    """Ask for the password twice, so that a slip does not become an entry; a pipe is read once, one line."""
    try:
        check_user(user)
        if sys.stdin is not None and sys.stdin.isatty():
            password = getpass.getpass("password: ")
            if password and getpass.getpass("again: ") != password:
                raise SettingsError("--basic: the two passwords differ")
        else:
            line = "" if sys.stdin is None else sys.stdin.readline()
            if not line:
                raise EOFError
            password = line.removesuffix("\n")
        return basic_entry(user, password)
    except EOFError:
        raise SettingsError("--basic: no password was given") from None
    except UnicodeError:
        raise SettingsError("--basic: the password is not UTF-8 text") from None
    except ValueError as error:
        raise SettingsError(f"--basic: {error}") from None


def _serve(options: argparse.Namespace) -> int:
    return _run_server(_load(options), hint=None)


def _dev(options: argparse.Namespace) -> int:
    folder: Path = options.certificates
    if not (folder / "server.pem").exists():
        command = f"python -m certs.generate --out {shlex.quote(str(folder))}"
        raise SettingsError(f"{folder} holds no server.pem; make it, in a checkout of masque-relay, with: {command}")
    key = generate_key()
    settings = _load(
        options,
        {
            "tls.certificate": str(folder / "server.pem"),
            "tls.private_key": str(folder / "server.key"),
            "auth.preshared": f'["{preshared_entry(key)}"]',
            "policy.allow": '["127.0.0.0/8", "::1/128"]',
        },
    )
    return _run_server(settings, hint=partial(_hint, folder, key))


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


def _run_server(settings: Settings, hint: Callable[[str], str] | None) -> int:
    telemetry = settings.telemetry
    configure_logging(
        LogLevel(telemetry.level), LogFormat(telemetry.format), debug_addresses=telemetry.debug_addresses
    )
    sys.excepthook = _report_crash
    if settings.auth.open:
        _log.warning("open_relay", setting="auth.open")
    elif not settings.auth.preshared and not settings.auth.basic:
        raise SettingsError("auth: nobody could use this relay; set auth.preshared (`relay key` makes an entry)")
    try:
        startup = prepare(settings)
    except OSError as error:
        listen = settings.listen
        raise SettingsError(f"listen: cannot use {listen.host} port {listen.port}: {error.strerror}") from error
    return asyncio.run(_serve_until_told(startup, hint))


def _report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A crash's text may quote what a client sent, so only its kind and place are told."""
    frame = traceback.extract_tb(trace)[-1] if trace is not None else None
    place = f"{Path(frame.filename).name}:{frame.lineno}" if frame is not None else "unknown"
    _log.critical("crashed", exception_type=kind.__name__, place=place)


async def _serve_until_told(startup: Startup, hint: Callable[[str], str] | None) -> int:
    """Serve until a signal; returns the exit code."""
    server = Server(startup, CounterMetrics())
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.run())
        others = [
            tasks.create_task(_obey_signals(server, serving)),
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
    address = _text(server.address)
    print(f"relay: serving HTTP/3 on {address} with {settings.quic.engine}", flush=True)
    if hint is not None:
        print(hint(address), flush=True)


async def _obey_signals(server: Server, serving: asyncio.Task[None]) -> None:
    """SIGHUP reloads the certificate; the first SIGTERM or SIGINT drains, the second cuts what is left."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        stopping = False
        async for number in received:
            if number == signal.SIGHUP:
                try:
                    server.reload_certificate()
                    _log.info("certificate_reloaded")
                except EngineError as error:
                    _log.error("certificate_refused", reason=str(error))
            elif stopping:
                serving.cancel()
                return
            else:
                stopping = True
                _log.info("draining")
                server.stop()


def _forward(options: argparse.Namespace) -> int:
    host, port = _host_port(options.target, "the target")
    listen = _host_port(options.listen, "--listen", lowest=0)
    key = options.key
    if options.key_file is not None:
        try:
            key = options.key_file.read_text().strip()
        except OSError as error:
            raise ClientError(f"--key-file: cannot read {options.key_file}: {error.strerror}") from error
    if options.ca is not None and not options.ca.is_file():
        raise ClientError(f"--ca: cannot read {options.ca}")
    configure_logging(LogLevel.WARNING, LogFormat.CONSOLE)
    relay = RelayOptions(
        options.relay,
        key=key,
        ca_file=options.ca,
        is_verified=not options.insecure,
        engine=EngineName(options.engine),
    )
    forwarder = (TcpForwarder if options.kind == "tcp" else UdpForwarder)(relay, host, port, _report_refusal)

    def ready(address: Address) -> None:
        print(f"relay: forwarding {options.kind} {_text(address)} to {options.target}", flush=True)

    try:
        asyncio.run(_until_terminated(forwarder.run(listen, ready)))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error.strerror  # asyncio and socket add to strerror
        raise ClientError(f"--listen: cannot use {options.listen}: {reason}") from error
    return 0


async def _until_terminated(work: Coroutine[object, object, None]) -> None:
    """Run `work`; SIGTERM ends it in order."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return


def _report_refusal(error: ClientError) -> None:
    reason = f" ({error.proxy_status})" if error.proxy_status else ""
    advice = "; is the key right?" if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else ""
    print(f"relay: {error}{reason}{advice}", file=sys.stderr, flush=True)


def _host_port(text: str, name: str, lowest: int = 1) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or not lowest <= int(port) <= 65535:
        raise ClientError(f"{name}: must be HOST:PORT, with brackets around an IPv6 address, not {text}")
    return host, int(port)


def _text(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
