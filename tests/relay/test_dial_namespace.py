"""Dialling in a network namespace where addresses swallow packets: nothing is left behind, whoever wins or leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.relay.namespace import ADDRESSES, DELAY, DIALS, GOOD, SILENT_FOUR, SILENT_SIX

NAMESPACE = ("unshare", "--net", "--map-root-user")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `tests.relay.namespace` found."""
    try:
        subprocess.run([*NAMESPACE, "ip", "link", "add", "near", "type", "veth"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(
            f"no network namespace with virtual interfaces can be made here (needs root, util-linux): {error}"
        )
    command = [*NAMESPACE, sys.executable, "-m", "tests.relay.namespace"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_winners_leave_no_loser_behind(found: dict[str, Any]) -> None:
    assert len(found["first"]) == DIALS
    assert min(seconds for seconds, _ in found["first"]) >= DELAY, "two silent addresses came first"
    assert found["left after winners"] == [0, 0]


def test_the_second_dial_goes_where_the_first_got_through(found: dict[str, Any]) -> None:
    (_, first), (seconds, second) = found["remembered"]
    assert first == [str(SILENT_SIX), str(SILENT_FOUR), str(GOOD)]
    assert second == [str(GOOD)]
    assert seconds < 5


def test_giving_up_leaves_nothing_behind(found: dict[str, Any]) -> None:
    assert found["under way"] >= DIALS, "the addresses do swallow packets"
    assert found["left after giving up"] == [0, 0]


def test_the_kernel_knows_this_machines_addresses(found: dict[str, Any]) -> None:
    assert found["own"] == ADDRESSES
