"""Every branch that only a GPU takes is in the table of docs/gpu.md, with what stands in for a GPU in the tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "stnbench"

WORDS = ("cuda", "triton", "nvidia", "pynvml", "device.type", "Captured")
"""One of them is in every module with such a branch; the others are not parsed."""

OF_TORCH = ("torch.cuda.", "torch.backends.cuda", "torch.backends.cudnn", "torch.accelerator.")
OF_NVIDIA = {"nvidia-smi", "nvidia-cuda-mps-control", "pynvml"}
CAPTURES = {"CapturedCall", "CapturedPass", "CapturedStep"}


def is_of_a_gpu(node: ast.AST) -> bool:
    """Whether it asks for a GPU, calls CUDA or NVIDIA's tools, or captures."""
    if isinstance(node, ast.Attribute):
        return node.attr == "is_cuda" or ast.unparse(node).startswith(OF_TORCH)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        kinds = [side.value for side in sides if isinstance(side, ast.Constant)]
        asked = [side for side in sides if isinstance(side, ast.Attribute) and side.attr in {"type", "kind"}]
        return bool(asked) and bool({"cuda", "cpu"} & set(kinds))
    if isinstance(node, ast.Constant):
        return node.value in OF_NVIDIA
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        return any(name.partition(".")[0] in {"triton", "pynvml"} for name in names)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CAPTURES


def branches(path: Path) -> Iterator[str]:
    """Functions, as ``package/module.py: Class.function``, and modules whose own statements do."""
    text = path.read_text()
    if not any(word in text for word in WORDS):
        return
    where = path.relative_to(PACKAGE).as_posix()

    def visit(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.")
            elif any(map(is_of_a_gpu, ast.walk(child))):
                yield f"{where}: {prefix}{child.name}" if isinstance(child, ast.FunctionDef) else where

    yield from visit(ast.parse(text), "")


def test_every_branch_of_a_gpu_is_in_the_table() -> None:
    """No more and no fewer: a new branch needs a line that says how it is tested without a GPU."""
    found = {branch for path in sorted(PACKAGE.rglob("*.py")) for branch in branches(path)}
    document = (ROOT / "docs" / "gpu.md").read_text()
    table = document.partition("## What only a GPU runs")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(told) == len(set(told))
    assert set(told) == found


def test_the_tests_that_the_table_names_are_there() -> None:
    """Of every line of the table, where a file is named."""
    table = (ROOT / "docs" / "gpu.md").read_text().partition("## What only a GPU runs")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(test_\w+\.py)`", table))
    assert named
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert named - there == set()
