"""The colours of a page, light and dark, for its text and its figures alike.

Ink, faint ink, links and verdicts have a contrast of at least 4.5 with the page and its panels, the colours of lines at
least 3 (WCAG 2.2 AA); a test measures it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stnbench.core.identity import Json
from stnbench.spec.verdict import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colours as ``#rrggbb``.

    Attributes:
        page: behind everything.
        panel: behind figures and boxes.
        ink: of text.
        faint: of text beside the point.
        line: of rules and grids.
        accent: of links, focus and what is best.
        good: of what is as it should be.
        bad: of what is wrong.
        lines: of the cells of a figure, the first cell's first.
        low: where a scale of one hue begins.
        high: where it ends.
        verdicts: of each verdict on a transformer.
    """

    page: str
    panel: str
    ink: str
    faint: str
    line: str
    accent: str
    good: str
    bad: str
    lines: Sequence[str]
    low: str
    high: str
    verdicts: Mapping[Verdict, str]


LIGHT: Final = Theme(
    page="#ffffff",
    panel="#f6f7f9",
    ink="#1b1f24",
    faint="#57606a",
    line="#d5d9df",
    accent="#0b5bd3",
    good="#1a6f37",
    bad="#b3261e",
    lines=("#0b5bd3", "#c2410c", "#147a3d", "#7a3fd1", "#8a6100", "#00788a", "#b0307f", "#57606a"),
    low="#eef2f8",
    high="#0b4fb8",
    verdicts={
        Verdict.HEALTHY: "#2f9e5b",
        Verdict.UNHELPFUL: "#c7b34a",
        Verdict.IDENTITY: "#9aa4b0",
        Verdict.CONSTANT: "#d69e2e",
        Verdict.COLLAPSED: "#c8382e",
        Verdict.DIVERGED: "#7a3fd1",
    },
)

DARK: Final = Theme(
    page="#0f1216",
    panel="#171b21",
    ink="#e8eaed",
    faint="#a3abb6",
    line="#333a44",
    accent="#7db4ff",
    good="#5fce8a",
    bad="#ff8a80",
    lines=("#6aa9ff", "#ff9a5c", "#5fce8a", "#b99aff", "#e0b44c", "#4cc5d6", "#f28ac6", "#a3abb6"),
    low="#1d232b",
    high="#8cc0ff",
    verdicts={
        Verdict.HEALTHY: "#3fb871",
        Verdict.UNHELPFUL: "#d8c768",
        Verdict.IDENTITY: "#78828e",
        Verdict.CONSTANT: "#dba73a",
        Verdict.COLLAPSED: "#f0645a",
        Verdict.DIVERGED: "#a883ff",
    },
)

_WORDS: Final = ("page", "panel", "ink", "faint", "line", "accent", "good", "bad", "low", "high")


def css_variables(theme: Theme) -> str:
    """The theme as custom properties of CSS, without the braces."""
    return " ".join(f"--{word}: {getattr(theme, word)};" for word in _WORDS)


def theme_data(theme: Theme) -> dict[str, Json]:
    """The theme as the page's script reads it: verdicts as a list, from healthy to diverged."""
    words: dict[str, Json] = {word: getattr(theme, word) for word in _WORDS}
    return {**words, "lines": list(theme.lines), "verdicts": [theme.verdicts[verdict] for verdict in Verdict]}
