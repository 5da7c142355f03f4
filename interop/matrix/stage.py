"""Sets up what a run plays on, origins, names, certificates, pools of servers, and takes it down again."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from interop.matrix.claim import claim_results
from interop.matrix.contestants import Contestant, Ground, OwnClient, OwnClientElsewhere, Peer
from interop.matrix.names import ORIGIN_NAME, serve_names
from interop.matrix.peers import PeerSpec, ServerSpec
from interop.matrix.pool import Pool
from interop.matrix.relays import Relays
from interop.matrix.results import Column
from interop.matrix.runner import Played, Runner
from interop.matrix.servers import Servers
from interop.matrix.token_peer import TokenPeer
from interop.matrix.workshop import Workshop
from relay.conformance.case import Case
from relay.conformance.origins import can_listen, running_origins
from relay.quic.development import write_certificates
from relay.quic.engine import EngineName

__all__ = ["Plan", "run_plan"]

_HOST, _HOST6 = "127.0.0.1", "::1"
_NAMES = ("localhost", _HOST, _HOST6)
_IDLE_SERVERS = 6
_FILES = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    root: Path
    "The checkout."
    home: Path
    "The folder for builds and results, which are kept, and for what lives as long as the run."
    engine: EngineName
    "The QUIC library of our relay and of our client."
    jobs: int
    "How many cases at the same time."
    peers: Sequence[PeerSpec]
    "Clients through our relay."
    servers: Sequence[ServerSpec]
    "Servers for our client."
    has_own: bool
    "Our client through our relay too."
    cases: Sequence[Case]
    "The cases."
    may_install: bool = False
    "Missing Debian packages may be installed."
    tries: int = 1
    "How often a case may be played until it passes."


async def run_plan(plan: Plan, tell: Callable[[Played], None]) -> list[Column]:
    """Run a plan. When this returns, or is cancelled, every process that it started has ended.

    Args:
        plan: what to run.
        tell: called for each cell, in order.

    Returns:
        The columns.
    """
    _raise_file_limit()
    home = plan.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="run-", dir=home))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        results = stack.enter_context(claim_results(home))
        if results != home / "results":
            _say(f"another run writes to {home / 'results'}; this one's logs are in {results}")
        ground = await _set_up(stack, plan, home, work)
        runner = Runner(_contestants(plan, ground), plan.cases, results, plan.root, tell, tries=plan.tries)
        return await runner.run(plan.jobs)


async def _set_up(stack: AsyncExitStack, plan: Plan, home: Path, work: Path) -> Ground:
    """Start what all contestants need; the stack ends it."""
    folders = {name: work / name for name in ("certificates", "pages", "logs")}
    for folder in folders.values():
        folder.mkdir()
    write_certificates(folders["certificates"], list(_NAMES))
    has_ipv6 = can_listen(_HOST6)
    hosts = (_HOST, _HOST6) if has_ipv6 else (_HOST,)
    origins = await stack.enter_async_context(running_origins(hosts, folders["pages"], (*_NAMES, ORIGIN_NAME)))
    resolver = await stack.enter_async_context(serve_names(_HOST))
    pool = await stack.enter_async_context(Pool(_IDLE_SERVERS))
    workshop = Workshop(home / "build", may_install=plan.may_install, say=_say)
    return Ground(
        origins=origins,
        relays=Relays(pool, plan.engine, folders["certificates"], folders["logs"], resolver),
        servers=Servers(pool, workshop, folders["certificates"], folders["logs"]),
        workshop=workshop,
        ca_file=folders["certificates"] / "ca.pem",
        engine=plan.engine,
        has_ipv6=has_ipv6,
        say=_say,
    )


def _contestants(plan: Plan, ground: Ground) -> list[Contestant]:
    own: list[Contestant] = [OwnClient(ground)] if plan.has_own else []
    peers = [(Peer if spec.has_tunnels else TokenPeer)(spec, ground) for spec in plan.peers]
    return [*own, *peers, *(OwnClientElsewhere(spec, ground) for spec in plan.servers)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _raise_file_limit() -> None:
    """Make room for the sockets of some hundred tunnels on both sides of the relay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
