"""The names that users may rely on."""

import importlib
import subprocess
import sys

import pytest

SURFACE = {
    "stnbench": {
        "__version__",
        "compare",
        "export",
        "load_sweep",
        "load_trial",
        "plan",
        "read_results",
        "register",
        "run_sweep",
    },
    "stnbench.nn": {
        "AffineTransformation",
        "ContrastiveNorm",
        "HomographyTransformation",
        "SpatialTransformer",
        "Transformation",
        "Transformed",
        "sample",
    },
    "stnbench.testing": {"TRANSFORMER_CHECKS", "check_transformer"},
}
"""A name that disappears breaks somebody's program; one that is added is kept for good."""


@pytest.mark.parametrize("package", SURFACE)
def test_the_public_names_are_these(package: str) -> None:
    """They are listed, found by ``dir`` and can be imported."""
    module = importlib.import_module(package)

    assert SURFACE[package] <= {*module.__all__}
    assert {*module.__all__} <= {*dir(module)}
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match=r"module 'stnbench.nn' has no attribute 'SpatialTransfomer'"):
        importlib.import_module("stnbench.nn").SpatialTransfomer  # noqa: B018 - asked for its effect


@pytest.mark.slow
@pytest.mark.parametrize("package", ["stnbench", "stnbench.nn", "stnbench.testing"])
def test_importing_a_package_loads_no_library(package: str) -> None:
    """Names are imported when they are first asked for."""
    script = (
        f"import sys, {package}; print(sorted({{'torch', 'numpy', 'pandas', 'pydantic', 'hydra'}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "[]\n"


def test_the_example_of_the_layer_runs() -> None:
    """Its docstring is a doctest."""
    import doctest

    from stnbench.nn import spatial_transformer

    found = doctest.DocTestFinder(recurse=False).find(spatial_transformer.SpatialTransformer, "SpatialTransformer")
    runner = doctest.DocTestRunner()
    for example in found:
        runner.run(example)

    assert runner.tries >= 4
    assert runner.failures == 0


def test_the_examples_of_the_package_run() -> None:
    """Docstrings of public functions are doctests."""
    import doctest

    import numpy as np

    import stnbench

    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for name in ("load_sweep", "plan", "run_sweep", "load_trial", "compare"):
        for example in finder.find(getattr(stnbench, name), name, globs={"stnbench": stnbench, "np": np}):
            runner.run(example)

    assert runner.tries >= 8
    assert runner.failures == 0
