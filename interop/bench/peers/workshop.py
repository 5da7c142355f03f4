"""Other people's servers and the compiled load generator: built, or skipped with what to install."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from interop.bench.lab import PYTHON_KIT, Kit
from interop.bench.peers.plan import GROUPS
from interop.bench.processes import CHECKOUT
from interop.bench.servers import Spec
from interop.matrix import peers, workshop
from interop.matrix.servers import server_command

__all__ = ["OTHERS", "Built", "build_kit", "build_others", "list_others", "other_spec", "sources"]

OTHERS = CHECKOUT / "interop" / "servers"
"One folder for each server that is not ours; interop/matrix/peers.py says what is in it."

_LOAD = peers.Spec(
    name="load",
    folder=CHECKOUT / "interop" / "load",
    about="the load generator",
    language="Rust",
    tools=("cargo",),
    hint="install Rust, for example with rustup",
    build=(("cargo", "build", "--quiet", "--release", "--target-dir", "{build}"),),
    run=("{build}/release/load",),
)


@dataclass(slots=True)
class Built:
    """What can be used, and what not."""

    specs: dict[str, Spec] = field(default_factory=dict)
    "Servers by name."
    skipped: dict[str, str] = field(default_factory=dict)
    "What lacks a tool, and what to install."
    failures: dict[str, str] = field(default_factory=dict)
    "What cannot be built, and what its build said."

    def keep(self, name: str, shortfall: workshop.Shortfall) -> None:
        """Keep why something cannot be used, and say so.

        Args:
            name: what.
            shortfall: why.
        """
        reason = f"{shortfall.reason}\n{shortfall.detail}".strip()
        (self.skipped if shortfall.is_missing else self.failures)[name] = reason
        print(f"{'SKIP' if shortfall.is_missing else 'FAILED'}  {name}: {reason}", file=sys.stderr, flush=True)


def build_others(folder: Path, wanted: Collection[str] | None = None) -> Built:
    """Build the servers that are not ours.

    Args:
        folder: where the outputs go, kept between runs.
        wanted: the names to build, or None for all.

    Returns:
        The servers that can be started, and why the others cannot.

    Raises:
        SpecError: a server.toml is wrong.
    """
    built = Built()
    shop = workshop.Workshop(folder, say=_say)
    for spec in peers.load_servers(OTHERS):
        if wanted is not None and spec.name not in wanted:
            continue
        shortfall = asyncio.run(shop.prepare(spec))
        if shortfall is None:
            built.specs[spec.name] = other_spec(spec, shop.values(spec))
        else:
            built.keep(spec.name, shortfall)
    return built


def list_others() -> list[str]:
    """List the servers that are not ours.

    Returns:
        Their names.

    Raises:
        SpecError: a server.toml is wrong.
    """
    return [spec.name for spec in peers.load_servers(OTHERS)]


def other_spec(spec: peers.ServerSpec, values: Mapping[str, str]) -> Spec:
    """Make a server of a folder one that can be measured.

    Args:
        spec: what its server.toml says.
        values: what stands for `{build}` and `{python}`.

    Returns:
        The server.
    """
    return Spec(spec.name, partial(server_command, spec, values), frozenset(map(str, spec.kinds)), home=spec.folder)


def build_kit(folder: Path, built: Built) -> Kit:
    """Build the compiled generator and its origins.

    Args:
        folder: where the outputs go, kept between runs.
        built: keeps why it cannot be used.

    Returns:
        The programs; those in Python, which know fewer orders, where the compiled ones cannot be had.
    """
    shop = workshop.Workshop(folder, say=_say)
    shortfall = asyncio.run(shop.prepare(_LOAD))
    if shortfall is not None:
        built.keep("load generator in Rust", shortfall)
        return PYTHON_KIT
    (binary,) = peers.fill(_LOAD.run, shop.values(_LOAD))
    return Kit(
        "interop/load, in Rust on quinn-proto",
        (binary,),
        (binary, "origin", "udp"),
        (binary, "origin", "tcp"),
        (binary, "mirror"),
        frozenset(GROUPS),
    )


def sources() -> dict[str, Path]:
    """List the folders whose pinned versions belong into the report.

    Returns:
        Folders by what they are called.
    """
    folders = {folder.name: folder for folder in sorted(OTHERS.glob("*")) if (folder / "server.toml").is_file()}
    return {**folders, "load generator": _LOAD.folder}


def _say(text: str) -> None:
    """Tell what takes long."""
    print(text, file=sys.stderr, flush=True)
