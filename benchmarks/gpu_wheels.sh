#!/usr/bin/env bash
# Fills benchmarks/wheels with what a machine without network needs beside torch, NumPy, pandas, SciPy, scikit-learn, Pillow,
# psutil, PyYAML, rich and filelock: about 25 MB for Python 3.12 on Linux x86_64, at the versions of requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
version() { grep -i "^$1==" requirements.lock | cut -d';' -f1 | tr -d ' '; }
mkdir -p benchmarks/wheels
packages=$(for p in alembic annotated-types hydra-core mako omegaconf optuna colorlog pydantic pydantic-core sqlalchemy \
  typing-inspection typing-extensions jaxtyping wadler-lindig pytest iniconfig pluggy; do version "$p"; done)
platforms=$(for n in 2_28 2_27 2_17; do printf -- '--platform manylinux_%s_x86_64 ' $n; done)
python3 -m pip download -q --no-deps --only-binary=:all: --python-version "${TARGET_PYTHON:-3.12}" --implementation cp \
  $platforms --platform manylinux2014_x86_64 -d benchmarks/wheels $packages
python3 -m pip wheel -q --no-deps -w benchmarks/wheels "$(version antlr4-python3-runtime)"  # a source archive alone
du -sh benchmarks/wheels
