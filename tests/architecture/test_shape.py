"""The tree keeps the shape that its newcomers rely on."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FILE = 500
"""Lines; a file is about one thing."""

LONGEST_FUNCTION = 45
"""Lines without its docstring."""


@cache
def tree(path: Path) -> ast.Module:
    """The syntax of a file, read once for all tests."""
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Every function of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            yield node


def test_files_and_functions_stay_short() -> None:
    """What grows beyond these lengths is about two things."""
    long = [str(path) for path in SOURCES if len(path.read_text().splitlines()) > LONGEST_FILE]
    for path in SOURCES:
        for function in functions(path):
            docstring = function.body[0] if ast.get_docstring(function) else None
            documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
            length = (function.end_lineno or 0) - function.lineno + 1 - documented
            if length > LONGEST_FUNCTION:
                long.append(f"{path}: {function.name} has {length} lines")

    assert long == []


def test_every_test_states_its_fact() -> None:
    """A test's docstring says what is true when it passes."""
    silent = [
        f"{path.relative_to(ROOT)}: {function.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in functions(path)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]

    assert silent == []


def test_no_match_falls_through_in_silence() -> None:
    """The last case of every match catches all; over a closed choice it is assert_never, which mypy proves."""
    matches = [(path, node) for path in SOURCES for node in ast.walk(tree(path)) if isinstance(node, ast.Match)]
    open_ended = [
        f"{path}:{node.lineno}"
        for path, node in matches
        if not isinstance(node.cases[-1].pattern, ast.MatchAs) or node.cases[-1].pattern.pattern is not None
    ]

    assert len(matches) > 20
    assert open_ended == []
