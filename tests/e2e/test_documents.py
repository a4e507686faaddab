"""What the documents say is there."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from stnbench.config.compose import Composer
from stnbench.config.locate import conf_folder
from stnbench.spec.network import NETWORKS
from stnbench.spec.transformer import TRANSFORMERS, Sampler

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/cluster.md")]
MAKEFILE = (ROOT / "Makefile").read_text()


def text_of_documents() -> str:
    """All documents in one."""
    return "\n".join(document.read_text() for document in DOCUMENTS)


def test_every_make_target_of_the_documents_exists() -> None:
    """A reader can type what is written."""
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text_of_documents(), flags=re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))

    assert {"sweep", "test"} <= named
    assert named <= targets


def test_every_target_is_listed_by_make_help() -> None:
    """``make help`` knows every target that a person types, and the default target is help."""
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20).stdout
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))

    assert {f"make {target}" for target in targets} <= {" ".join(line.split()[:2]) for line in shown.splitlines()}


def test_every_module_of_the_documents_exists() -> None:
    """A command that is written can be started."""
    for module in set(re.findall(r"python -m stnbench\.(\w+)", text_of_documents())):
        path = ROOT / "src" / "stnbench" / module
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    """Links and paths lead somewhere."""
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:src|tests|conf|sweeps|reports|benchmarks|docs)/[\w./-]*[\w/])`", text)

    assert links or paths
    for path in (*links, *paths):
        assert (ROOT / path).exists() or (document.parent / path).exists(), path


def test_every_group_of_the_configuration_is_in_the_reference() -> None:
    """A user finds what can vary."""
    reference = (ROOT / "docs" / "reference" / "conf.md").read_text()
    for group in Composer(conf_folder()).defaults:
        assert f"## {group.partition('@')[0]}\n" in reference, group


def test_the_references_are_those_of_the_parsers_and_conf() -> None:
    """Generated files are as docs/generate.py writes them: run it after a change of an option, a choice or a key."""
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for name, text in generate["generated"]().items():
        assert (ROOT / name).read_text() == text, name


def test_every_family_of_transformations_is_documented() -> None:
    """Formula and source of each are on the page of families, and its pictures are those that are generated."""
    page = (ROOT / "docs" / "families.md").read_text()
    assert [family for family in TRANSFORMERS.names() if f"`{family}`" not in page] == []
    pictures = set(re.findall(r"reference/(grids/\w+\.svg)", page))
    assert {name for name in pictures if not (ROOT / "docs" / "reference" / name).is_file()} == set()


def test_the_table_of_onnx_exports_is_complete() -> None:
    """Every family with every sampler, and every network, agrees or is refused with a reason: docs/onnx_table.py."""
    page = (ROOT / "docs" / "reference" / "onnx.md").read_text()
    tables = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
        for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    ]
    families, _keys, networks = ({row[0]: row[1:] for row in table if row[0] != "---"} for table in tables)
    assert families.pop("family") == list(get_args(Sampler))
    assert sorted(families) == TRANSFORMERS.names()
    assert sorted(networks.keys() - {"network"}) == NETWORKS.names()
    for name, cells in (families | networks).items():
        for cell in cells if name != "network" else []:
            assert (cell == "refused" and f"\n`{name}`: " in page) or float(cell) <= 1e-4, (name, cell)
