"""The tree keeps the shape that its newcomers rely on."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FILE = 500
"""Lines; a file is about one thing."""

LONGEST_FUNCTION = 45
"""Lines without its docstring."""


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """Every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
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
