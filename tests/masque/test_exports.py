"""The package's door: it offers what its modules offer, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import masque


def public_modules() -> list[ModuleType]:
    """The modules whose names the door re-exports: all but private ones and the packages with their own doors."""
    return [
        importlib.import_module(f"masque.{info.name}")
        for info in pkgutil.iter_modules(masque.__path__)
        if not info.ispkg and not info.name.startswith("_")
    ]


def test_every_module_declares_what_is_public() -> None:
    modules = public_modules()
    assert {"masque.capsule", "masque.errors", "masque.request"} <= {module.__name__ for module in modules}
    for module in modules:
        assert len(set(module.__all__)) == len(module.__all__), module.__name__


def test_the_door_is_the_sum_of_the_modules() -> None:
    names = [name for module in public_modules() for name in module.__all__]
    assert len(set(names)) == len(names)
    assert sorted(masque.__all__) == sorted(names)


def test_the_door_offers_the_same_objects() -> None:
    for module in public_modules():
        for name in module.__all__:
            assert getattr(masque, name) is getattr(module, name)
