"""The door of masque.privacypass: it offers what its modules offer, and nothing else."""

from __future__ import annotations

import importlib
import pkgutil

import masque.privacypass as door


def test_the_door_is_the_sum_of_its_modules() -> None:
    modules = [
        importlib.import_module(found.name) for found in pkgutil.iter_modules(door.__path__, "masque.privacypass.")
    ]
    assert len(modules) == 12
    names = [name for module in modules for name in module.__all__]
    assert sorted(names) == sorted(set(names))
    assert sorted(door.__all__) == sorted(names)
    for module in modules:
        for name in module.__all__:
            assert getattr(door, name) is getattr(module, name)


def test_no_name_hides_a_module() -> None:
    assert not {found.name for found in pkgutil.iter_modules(door.__path__)} & set(door.__all__)
