"""The page around the sections: one file that fetches nothing and runs no script but its own."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from stnbench.report.page.html import escape, json_block
from stnbench.report.page.theme import DARK, LIGHT, css_variables, theme_data

THEMES_ID = "stnbench-themes"


def document_lines(title: str, body: Sequence[str], *, has_figures: bool) -> Iterator[str]:
    """The whole page; Plotly is part of it where there are figures to draw.

    Scripts are allowed by their SHA-256 alone, which also holds where the page is opened as a file.
    """
    scripts = [_plotly()] if has_figures else []
    scripts.append(_asset("page.js"))
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{escape(title)}</title>"
    yield f"<style>{_style()}</style>"
    yield "</head>"
    yield "<body>"
    yield from body
    yield json_block(THEMES_ID, {"light": theme_data(LIGHT), "dark": theme_data(DARK)})
    yield from (f"<script>{script}</script>" for script in scripts)
    yield "</body>"
    yield "</html>"


def _policy(scripts: Iterable[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _style() -> str:
    light, dark = css_variables(LIGHT), css_variables(DARK)
    schemes = f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return schemes + _asset("page.css")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def _plotly() -> str:
    """Plotly's own script, as its package brings it; no line of it can end the element that it is in."""
    from plotly.offline import get_plotlyjs  # a fifth of a second that only a page with figures pays

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script").replace("\r\n", "\n")
