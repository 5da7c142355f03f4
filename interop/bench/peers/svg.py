"""A drawing in SVG 1.1: rectangles, lines, circles and text, and nothing that needs a library."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

__all__ = ["Drawing"]

_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
INK = "#1f2328"
"The colour of text."


class Drawing:
    """A drawing on white, so that it can be read on any page."""

    def __init__(self, width: int, height: int, title: str) -> None:
        """Begin a drawing.

        Args:
            width: in pixels.
            height: in pixels.
            title: what it shows, for those who cannot see it.
        """
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label={quoteattr(title)} font-family={quoteattr(_FONT)}>'
        )
        self._parts = [f"<title>{escape(title)}</title>"]
        self.rectangle(0, 0, width, height, "#ffffff")

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle.

        Args:
            x: the left side.
            y: the top.
            width: how wide.
            height: how high.
            colour: of the inside.
        """
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> None:
        """Draw a straight line.

        Args:
            x1: where it begins.
            y1: where it begins.
            x2: where it ends.
            y2: where it ends.
            colour: of the line.
            width: how thick.
        """
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """Draw a line through points.

        Args:
            points: at least two.
            colour: of the line.
        """
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>')

    def dot(self, x: float, y: float, colour: str, is_hollow: bool = False) -> None:
        """Draw a dot.

        Args:
            x: its middle.
            y: its middle.
            colour: of the dot.
            is_hollow: only the ring.
        """
        fill = "#ffffff" if is_hollow else colour
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: int = 12,
        anchor: str = "start",
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """Write a line of text.

        Args:
            x: where, by the anchor.
            y: the base line.
            words: the text.
            size: in pixels.
            anchor: `start`, `middle` or `end`.
            colour: of the letters.
            bold: in bold letters.
        """
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{escape(words)}</text>"
        )

    def render(self) -> str:
        """Finish the drawing.

        Returns:
            An SVG document.
        """
        return "\n".join([self._head, *self._parts, "</svg>", ""])
