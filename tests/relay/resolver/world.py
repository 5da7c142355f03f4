"""A small world of zones below one root, asked as if by a recursive resolver that does not validate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from relay.resolver.dnssec import TrustAnchors, parse_trust_anchors
from relay.resolver.upstream import Answer, Question
from tests.relay.resolver.zones import Zone

__all__ = ["Tamper", "World"]

Tamper = Callable[[Question, dns.message.Message], None]
"Changes a response on its way."


class World:
    """Zones, the deepest of which answers. An asker."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.zones = {zone.apex: zone for zone in zones}
        self.addresses: dict[dns.name.Name, str] = {}
        "Where each zone is served, for those that are."
        self.asked: Counter[tuple[str, str]] = Counter()
        self.tamper: Tamper | None = None

    @property
    def anchors(self) -> TrustAnchors:
        """The root's key as trust anchor."""
        return parse_trust_anchors(self.anchor_text)

    @property
    def anchor_text(self) -> str:
        """The root's DS record as a line."""
        return f". IN DS {self.zones[dns.name.root].ds()}\n"

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Answer from the zones, aliases followed."""
        self.asked[question.name.to_text(), dns.rdatatype.to_text(question.rdtype)] += 1
        message = self.answer(dns.message.make_query(question.name, question.rdtype, want_dnssec=question.do))
        if self.tamper is not None:
            self.tamper(question, message)
        return Answer(message)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """Answer a query, with whole chains of aliases."""
        rdtype = query.question[0].rdtype
        name = query.question[0].name
        response = dns.message.make_response(query, recursion_available=True, our_payload=4096)
        for _ in range(16):
            step = dns.message.make_query(name, rdtype, want_dnssec=bool(query.ednsflags & dns.flags.DO))
            found = self._zone_of(name, rdtype).respond(step)
            response.answer += found.answer
            response.authority += [rrset for rrset in found.authority if rrset not in response.authority]
            response.set_rcode(found.rcode())
            aliases = [rrset for rrset in found.answer if rrset.rdtype == dns.rdatatype.CNAME]
            if not aliases or rdtype == dns.rdatatype.CNAME:
                break
            name = aliases[-1][0].target
        return response

    def parent_of(self, zone: Zone) -> Zone:
        """Return the zone that delegates to this one; the root's is itself."""
        return self._zone_of(zone.apex, dns.rdatatype.DS)

    def _zone_of(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Zone:
        place = name.parent() if rdtype == dns.rdatatype.DS and name != dns.name.root else name
        while place not in self.zones:
            place = place.parent()
        return self.zones[place]
