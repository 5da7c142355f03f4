"""What tests of validation have in common: a question, an answer that is changed on its way, and its verdict."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import dns.message
from dns.rdatatype import RdataType

from relay.resolver.dnssec import ValidationLimits, Validator, Verdict, Work, wall_clock
from relay.resolver.upstream import Question
from tests.relay.resolver.world import Tamper, World
from tests.relay.resolver.zones import name_of

__all__ = ["LIMITS", "Response", "asked", "judge", "on", "real", "told", "verdict"]

LIMITS = ValidationLimits()
Response = dns.message.Message


def asked(name: str, rdtype: RdataType = RdataType.A) -> Question:
    return Question(name_of(name), rdtype, do=True, cd=True)


async def judge(world: World, question: Question, tamper: Tamper | None = None) -> tuple[Verdict, Work]:
    """Validate an answer with nothing remembered."""
    world.tamper = tamper
    deadline = anyio.current_time() + 5
    work = Work(LIMITS)
    response = (await world.ask(question, deadline)).message
    return await Validator(world, world.anchors, wall_clock).validate(question, response, deadline, work), work


async def verdict(world: World, question: Question, tamper: Tamper | None = None) -> Verdict:
    """Validate an answer with nothing remembered."""
    return (await judge(world, question, tamper))[0]


def real(world: World, name: str, rdtype: RdataType = RdataType.A) -> Response:
    """Return what the zones really say."""
    return world.answer(dns.message.make_query(name, rdtype, want_dnssec=True))


def told(world: World, question: Question, name: str, rdtype: RdataType = RdataType.A) -> Tamper:
    """Answer a question with what is true of another one."""
    other = real(world, name, rdtype)

    def tamper(came: Question, response: Response) -> None:
        if came == question:
            response.answer, response.authority = list(other.answer), list(other.authority)
            response.set_rcode(other.rcode())

    return tamper


def on(question: Question, change: Callable[[Response], None]) -> Tamper:
    """Change the response to one question."""

    def tamper(came: Question, response: Response) -> None:
        if (came.name, came.rdtype) == (question.name, question.rdtype):
            change(response)

    return tamper
