"""What travels inside of tunnels: pages over TLS, and over HTTP/3 (RFC 9110 §9.3.6, RFC 9298 §1)."""

from __future__ import annotations

import hashlib
from time import monotonic

from relay.conformance.case import CaseList, Need, Stage
from relay.conformance.driver import DriverError, DriverTimeout, Feature, Kind, pattern

__all__ = ["INSIDE_CASES"]

_PAGE_SIZE = 300_000
_AT_ONCE = 3
"Pages that are loaded at the same time."
_PARTS = {"/style.css", "/script.js", "/picture.svg"}
"What a page of the origin loads."
_AT_ONCE_SECONDS = 8.0
"In which a client must have noticed a refusal; one that missed it waits for its idle time-out."

INSIDE_CASES = CaseList()
"The cases of what is inside of tunnels."


def _base(stage: Stage, via: Kind) -> str:
    pages = stage.origins.pages
    return f"https://{stage.server.name or stage.server.host}:{pages.tcp if via is Kind.TCP else pages.udp}"


async def _fetch(stage: Stage, via: Kind) -> None:
    """Fetch a page and a large body by the origin's name."""
    await stage.driver.connect()
    fetched = await stage.driver.fetch(
        f"{_base(stage, via)}/bytes/{_PAGE_SIZE}",
        str(stage.origins.pages.ca_file),
        via,
        stage.server.credentials,
    )
    stage.must(fetched.status == 200, f"the origin's status came as {fetched.status}")
    stage.must(fetched.size == _PAGE_SIZE, f"{fetched.size} bytes of a page of {_PAGE_SIZE}")
    stage.must(fetched.sha256 == hashlib.sha256(pattern(_PAGE_SIZE)).hexdigest(), "the page was changed on the way")
    is_h3 = fetched.protocol == "h3"
    stage.must(is_h3 == (via is Kind.UDP), f"fetched over {fetched.protocol}")


@INSIDE_CASES.add("https-inside", "RFC 9110 §9.3.6", Feature.FETCH_TCP, Need.TCP)
async def _https_inside(stage: Stage) -> None:
    """A page over TLS inside of a TCP tunnel."""
    await _fetch(stage, Kind.TCP)


@INSIDE_CASES.add("http3-inside", "RFC 9298 §1", Feature.FETCH_UDP, Need.UDP)
async def _http3_inside(stage: Stage) -> None:
    """A page over HTTP/3 inside of a UDP tunnel."""
    await _fetch(stage, Kind.UDP)


@INSIDE_CASES.add("https-inside-refused", "RFC 9114 §4.1", Feature.FETCH_TCP, Need.TCP)
async def _https_inside_refused(stage: Stage) -> None:
    """A page behind a refused tunnel fails at once, and the next one is fetched."""
    await stage.driver.connect()
    began = monotonic()
    try:
        await stage.driver.fetch(
            f"https://{stage.server.missing_name}/",
            str(stage.origins.pages.ca_file),
            Kind.TCP,
            stage.server.credentials,
        )
    except DriverTimeout:
        stage.must(False, "the client waited for an answer in vain")
    except DriverError:
        pass
    else:
        stage.must(False, "a page of a name that does not exist")
    took = monotonic() - began
    stage.must(took < _AT_ONCE_SECONDS, f"the client noticed the refusal after {took:.0f} s")
    await _fetch(stage, Kind.TCP)


async def _load_pages(stage: Stage, via: Kind) -> None:
    """Load pages with all their parts, at the same time."""
    await stage.driver.connect()
    urls = [f"{_base(stage, via)}/page"] * _AT_ONCE
    pages = await stage.driver.load_pages(urls, str(stage.origins.pages.ca_file), via, stage.server.credentials)
    stage.must(len(pages) == _AT_ONCE, f"{len(pages)} of {_AT_ONCE} pages")
    for page in pages:
        stage.must(page.status == 200, f"a page's status came as {page.status}")
        paths = {path for path, status in page.parts.items() if status == 200}
        stage.must(paths == _PARTS, f"of a page's parts came {', '.join(sorted(paths)) or 'none'}")
        protocols = {page.protocol, *page.part_protocols}
        is_h3 = protocols == {"h3"} if via is Kind.UDP else "h3" not in protocols
        stage.must(is_h3, f"loaded over {', '.join(sorted(protocols))}")


@INSIDE_CASES.add("pages-over-tcp", "RFC 9110 §9.3.6", Feature.PAGES, Feature.FETCH_TCP, Need.TCP)
async def _pages_over_tcp(stage: Stage) -> None:
    """Several pages at once, each with its style sheet, script and picture, over TLS in TCP tunnels."""
    await _load_pages(stage, Kind.TCP)


@INSIDE_CASES.add("pages-over-udp", "RFC 9298 §1", Feature.PAGES, Feature.FETCH_UDP, Need.UDP)
async def _pages_over_udp(stage: Stage) -> None:
    """Several pages at once, each with its style sheet, script and picture, over HTTP/3 in UDP tunnels."""
    await _load_pages(stage, Kind.UDP)
