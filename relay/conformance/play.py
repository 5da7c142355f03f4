"""Plays a case and says what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from relay.conformance.case import Case, CaseFailed, Stage
from relay.conformance.driver import DriverError

__all__ = ["Outcome", "Verdict", "play"]

_LONGEST = 90.0


class Verdict(StrEnum):
    """What came of a case."""

    PASS = "PASS"
    FAIL = "FAIL"
    NONE = "n/a"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, played or not."""

    case: Case
    "Which."
    verdict: Verdict
    "What came of it."
    reason: str = ""
    "Why it failed, or could not be played."
    notes: tuple[str, ...] = ()
    "What the server should have done and did not."
    seconds: float = 0.0
    "How long it took."


async def play(case: Case, stage: Stage, limit: float = _LONGEST) -> Outcome:
    """Play a case; never raises but when it is cancelled.

    Args:
        case: which.
        stage: a fresh one.
        limit: seconds after which the case has failed.

    Returns:
        What came of it. A case that the client or the server has no means for is not played.
    """
    missing = case.missing(stage.features, stage.server.offers)
    if missing:
        return Outcome(case, Verdict.NONE, missing)
    loop = asyncio.get_running_loop()
    start = loop.time()
    reason = ""
    try:
        async with asyncio.timeout(limit):
            await case.check(stage)
    except (CaseFailed, DriverError) as error:
        reason = str(error) or type(error).__name__
    except TimeoutError:
        reason = f"not done after {limit:g} s"
    except Exception as error:  # noqa: BLE001 - a fault of the client or of the case must not end the whole run
        reason = f"{type(error).__name__}: {error}"
    verdict = Verdict.FAIL if reason else Verdict.PASS
    return Outcome(case, verdict, reason, tuple(stage.notes), loop.time() - start)
