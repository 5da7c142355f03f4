"""Each room's door offers exactly what its modules offer."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

INSIDE = {
    "relay.egress.nearest",
    "relay.egress.session",
    "relay.egress.wish",
    "relay.resolver.sized",
    "relay.settings.problems",
    "relay.settings.schema",
}
"Modules that serve their own room only."


@pytest.mark.parametrize("room", ["settings", "telemetry", "hooks", "auth", "policy", "quota", "resolver", "egress"])
def test_the_door_is_the_sum_of_its_modules(room: str) -> None:
    door = importlib.import_module(f"relay.{room}")
    names: list[str] = []
    for found in pkgutil.iter_modules(door.__path__, f"relay.{room}."):
        if found.name not in INSIDE:
            names += importlib.import_module(found.name).__all__
    assert sorted(names) == sorted(set(names))
    assert sorted(door.__all__) == sorted(names)
    for name in door.__all__:
        assert hasattr(door, name)
