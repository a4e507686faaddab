"""Long work tells whoever listens how far it has come, and nobody else."""

from stnbench.core.process import Advance, advance, advancing, listening
from stnbench.orchestration.progress import DataProgress


def test_parts_are_told_to_the_innermost_listener_alone() -> None:
    """Without a listener nothing happens; the outer one hears again after the block."""
    advance("alone", 1)
    outer: list[Advance] = []
    inner: list[Advance] = []
    with listening(outer.append):
        with listening(inner.append):
            assert list(advancing("ab", "drawing", 2)) == ["a", "b"]
        advance("drawing", 2, 2)

    assert inner == [Advance(work="drawing", done=done, total=2) for done in (0, 1)]
    assert outer == [Advance(work="drawing", done=2, total=2)]


def test_the_preparation_of_data_speaks_every_few_seconds() -> None:
    """After the first second, then every five; the share is told where the whole is known."""
    now_s, said = [0.0], list[str]()
    progress = DataProgress("signs", said.append, clock_s=lambda: now_s[0])
    for second in range(13):
        now_s[0] = float(second)
        progress(Advance(work="drawing train signs", done=100 * second, total=2580 if second < 10 else 0))

    assert said == [
        "data   signs: drawing train signs 100 of 2,580, 1 s so far",
        "data   signs: drawing train signs 600 of 2,580, 6 s so far",
        "data   signs: drawing train signs, 11 s so far",
    ]
