"""`relay egress`: the pools and their load, whether every address works, and the geofeed to publish."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from masque.target import IPAddress
from relay.cli.options import add_settings, load, parse_address
from relay.client import ClientError
from relay.egress import EgressPlan, Pool, SourceTable, check_sources, encode_geofeed, load_plan, read_status
from relay.settings import Settings
from relay.source import kernel_picks_from

__all__ = ["add_egress"]

_FAILED = 1


def add_egress(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `relay egress list`, `check` and `geofeed`."""
    egress = commands.add_parser("egress", help="egress addresses: list them, check them, print their geofeed")
    actions = egress.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="print pools and addresses, with the load of the relay that runs")
    check = actions.add_parser("check", help="see that every address can be bound and is routed; 1 when one is not")
    check.add_argument(
        "--via",
        action="append",
        default=[],
        metavar="ADDRESS:PORT",
        help="a TCP server outside that every address of its family connects to; may be repeated",
    )
    check.add_argument(
        "--timeout", type=float, default=3.0, metavar="SECONDS", help="how long such a server may take"
    )
    geofeed = actions.add_parser("geofeed", help="print the addresses and their places as RFC 8805 has them")
    for parser, command in ((listing, _list), (check, _check), (geofeed, _geofeed)):
        add_settings(parser)
        parser.set_defaults(command=command)


def _plan(settings: Settings) -> EgressPlan:
    return load_plan(settings.egress, SourceTable(settings.egress.retry.total_seconds()))


def _list(options: argparse.Namespace) -> int:
    settings = load(options)
    plan = _plan(settings)
    path = settings.egress.status
    status = None if path is None else read_status(path)
    for line in _listing(plan, {} if status is None else _states(status)):
        print(line)
    if path is None:
        print("# load and lost addresses are not known: egress.status is not set")
    elif status is None:
        print(f"# load and lost addresses are not known: no relay answers at {path}")
    return 0


def _states(status: dict[str, Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """What a running relay says, by network and ports."""
    return {
        (source["network"], source["ports"]): source
        for pool in status.get("pools", ())
        for source in pool.get("sources", ())
    }


def _listing(plan: EgressPlan, states: dict[tuple[str, str | None], dict[str, Any]]) -> Iterator[str]:
    by_pool = {pool: [name for name, its in plan.principals.items() if its is pool] for pool in plan.pools}
    for pool in plan.pools:
        yield _title(pool, by_pool[pool], is_default=pool is plan.default)
        for sources in pool.sources.values():
            for source in sources:
                ports = None if source.ports is None else str(source.ports)
                known = states.get((str(source.network), ports), {})
                name = str(source.network if source.is_drawn_from else source.network.network_address)
                load = f"  {known['tunnels']} tunnels, {known['opened']} so far" if known else ""
                yield f"  {name:<40} {ports or 'all ports':<12} {known.get('state', source.state.value)}{load}"
        if not any(pool.sources.values()):
            yield "  (the system chooses)"


def _title(pool: Pool, principals: list[str], *, is_default: bool) -> str:
    location = pool.location
    parts = (location.country, location.region, pool.city, location.geohash)
    place = ", ".join(part for part in parts if part) or "no location"
    notes = ["default"] if is_default else []
    notes += [f"for {', '.join(principals)}"] if principals else []
    return f"{pool.name}: {place}" + (f" ({'; '.join(notes)})" if notes else "")


def _check(options: argparse.Namespace) -> int:
    plan = _plan(load(options))
    if not any(plan.sources):
        print("no egress addresses are set: the system chooses")
        return 0
    via = [_server(text) for text in options.via]
    sources = list(dict.fromkeys(plan.sources))
    findings = asyncio.run(check_sources(sources, via, options.timeout))
    for finding in findings:
        print(f"{finding.source.network}: {finding.problem}")
    for ports in sorted({source.ports for source in sources if source.ports is not None}):
        if not kernel_picks_from(ports):
            print(f"# ports {ports}: not within net.ipv4.ip_local_port_range; the relay tries ports of it itself")
    print(
        f"{len(sources) - len(findings)} of {len(sources)} can be used"
        + ("" if via else "; nobody outside was asked")
    )
    return _FAILED if findings else 0


def _server(text: str) -> tuple[IPAddress, int]:
    host, port = parse_address(text, "--via")
    try:
        return ip_address(host), port
    except ValueError:
        raise ClientError(f"--via: must have an IP address, not {host}") from None


def _geofeed(options: argparse.Namespace) -> int:
    print(encode_geofeed(_plan(load(options)).pools), end="")
    return 0
