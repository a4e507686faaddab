"""Pictures that ``stnbench.show`` left beside the report, made part of the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stnbench.report.page.html import data_uri, escape

MOST_BYTES: Final = 4_500_000
"""Of all pictures together, so that a page stays small enough to be sent."""

_KINDS: Final = {
    "transform.png": "What the transformer does to validation images: the region it reads, and what it makes of it",
    "training.gif": "The transformer while the network learns",
    "tracks.gif": "Approaches to a sign: input above, what the classifier sees below",
}
"""What ``stnbench.show`` writes, by how the name of the file ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture as it is in its file; ``content`` is None for one that is too large for the page."""

    name: str
    caption: str
    content: bytes | None


def read_pictures(reports: Path, sweep: str) -> list[Picture]:
    """The pictures beside a sweep's report, by kind and name; those beyond ``MOST_BYTES`` without their content."""
    if Path(sweep).name != sweep:  # a name from the store must not lead out of the folder
        return []
    folder = reports / sweep
    found = []
    room = MOST_BYTES
    for kind, caption in _KINDS.items():
        for path in sorted([*folder.glob(kind), *folder.glob(f"*-{kind}")]):
            content = path.read_bytes() if path.stat().st_size <= room else None
            room -= len(content) if content is not None else 0
            found.append(Picture(name=path.name, caption=caption, content=content))
    return found


def gallery_lines(pictures: Sequence[Picture]) -> Iterator[str]:
    """The pictures, one below the other."""
    for picture in pictures:
        yield '<figure class="box gallery">'
        yield f"<h3>{escape(picture.caption)}</h3>"
        if picture.content is None:
            yield f'<p class="note">{escape(picture.name)} lies beside this page; it is too large to be part of it.</p>'
        else:
            uri = data_uri(picture.name.rpartition(".")[2], picture.content)
            yield f'<img src="{uri}" alt="{escape(picture.caption)}" loading="lazy">'
        yield f"<figcaption>{escape(picture.name)}</figcaption></figure>"
