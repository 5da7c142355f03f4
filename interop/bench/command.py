"""What the benchmark's commands share: lists of names as arguments, limits, and leaving in order when told to."""

from __future__ import annotations

import argparse
import resource
import signal
from collections.abc import Callable, Iterable
from types import FrameType

__all__ = ["names", "prepare_process"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def names(allowed: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Make a parser of names joined by commas.

    Args:
        allowed: the names that are known.

    Returns:
        The parser; it raises argparse.ArgumentTypeError for an unknown name.
    """
    known = tuple(allowed)

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        return found

    return parse


def prepare_process() -> None:
    """Raise the limit of open files, and let a signal that ends the process run through every `finally`.

    The first signal raises KeyboardInterrupt. Those after it are ignored, so that nothing stays behind.

    Raises:
        ValueError: the kernel refuses the limit, or this is not the main thread.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for number in _SIGNALS:
        signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Leave, once."""
    for known in _SIGNALS:
        signal.signal(known, signal.SIG_IGN)
    raise KeyboardInterrupt
