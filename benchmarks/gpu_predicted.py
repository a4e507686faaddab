"""What a GPU is predicted to need for the configurations of 2015: counted work, and assumed rates.

``python benchmarks/gpu_predicted.py`` counts, on the meta device and for the code as it is, the FLOPs, the bytes and
the kernels of a training step of each distinct configuration of 2015, and prints the tables of ``docs/gpu.md``; it
takes minutes of one core. ``--rows`` prints the table of single steps alone. Nothing is measured.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gpu  # which finds the modules of tests/support
import step_cases
import torch
from logged_operators import OperatorLog
from torch import Tensor
from torch.utils._pytree import tree_leaves

from stnbench.data.resident import PreparedImages, steps_per_epoch
from stnbench.models.scored_network import measure_cost
from stnbench.spec.sweep import SWEEPS_OF_2015
from stnbench.spec.trial import TrialSpec
from stnbench.training.step import StaticStep

ROOT = Path(__file__).parents[1]

LAUNCH_S = 7e-6
"""Assumed time of the host to start a kernel from Python."""

REPLAYED_S = 2e-6
"""Assumed least time of a kernel in a CUDA graph."""

BYTES_PER_S = 2.5e12
"""Assumed rate of memory; an H200 copies faster, which is left out."""

SCORED = 3_870 * 10 + 12_630 + 3 * 3_870
"""Images scored for a configuration: validation after ten epochs, the test half, and validation with theta replaced."""

SCORING_BATCH, SCORING_FACTOR, SCORING_LAUNCH_S = 250, 1.3, 5e-6
HALF = 0.6
"""Share of the bytes that are left in bfloat16, where weights, sampling and norms stay float32."""


@dataclass(frozen=True, slots=True)
class Work:
    """A training step: FLOPs, bytes read and written by operators one by one, and their number.

    Attributes:
        flops: of a step.
        moved: bytes.
        kernels: operators that compute; views and allocations are left out, and the update of the weights is one.
        parameters: of the network.
        steps: of the whole training.
    """

    flops: float
    moved: float
    kernels: int
    parameters: int
    steps: int


class _Traffic(OperatorLog):
    """Counts the bytes of all tensors that operators read and write, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        super().__init__(device="meta")
        self.moved = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run the operator, and count."""
        before = self.kernels
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if self.kernels > before:
            touched = [leaf for leaf in tree_leaves((args, kwargs or {}, result)) if isinstance(leaf, Tensor)]
            gathered = "index" in str(function.overloadpacket)  # of a table only the rows are read
            for leaf in touched:
                self.moved += 0 if gathered and leaf is touched[0] else leaf.numel() * leaf.element_size()
        return result


def work_of(spec: TrialSpec) -> Work:
    """Count a step of a trial on the meta device."""
    step_cases.SIDE, step_cases.CLASSES = gpu.SIDE, gpu.CLASSES
    run = step_cases.make_run(spec, torch.device("meta"), images=3 * spec.training.batch_size + 10)
    if spec.augment is None:  # as a trial on a GPU keeps them
        prepared = PreparedImages(run.images.images, run.model.preprocess)
        run = replace(run, images=replace(run.images, prepared=prepared))
    step = StaticStep(run)
    step.begin_epoch(0, 0)
    run.model.network.train()
    step.take()  # the optimiser has its buffers after it
    with _Traffic() as counted:
        step.take()
    with _Traffic() as update:  # an operator a tensor here, a kernel a group on a GPU
        run.optimizer.step()
    cost = measure_cost(spec, classes=gpu.CLASSES)
    images = spec.training.train_images or 39_209
    size = spec.training.batch_size
    return Work(
        flops=3.0 * cost.flops * size,
        moved=counted.moved,
        kernels=counted.kernels - update.kernels + len(run.optimizer.param_groups),
        parameters=cost.parameters,
        steps=steps_per_epoch(images, size, spec.training.drop_last) * spec.training.epochs,
    )


def configs_of_2015() -> list[TrialSpec]:
    """The distinct configurations of 2015's tables, at paper size."""
    specs = gpu.specs_of(SWEEPS_OF_2015, ROOT, "scale=paper")
    return list({spec.config_id: spec for spec in specs}.values())


@dataclass(frozen=True, slots=True)
class Design:
    """A way to compute all configurations on one GPU.

    Attributes:
        name: as the table has it.
        rate: FLOP/s of convolutions at a batch of 50.
        is_graph: one launch a step.
        slots: trials at once.
        overlap: they compute at the same time (MPS), and not by turns.
        bytes_share: of the bytes in float32.
    """

    name: str
    rate: float
    is_graph: bool = False
    slots: int = 1
    overlap: bool = False
    bytes_share: float = 1.0

    def step_s(self, work: Work) -> float:
        """Seconds of the GPU for a step, with those of other trials at once subtracted."""
        arithmetic, memory = work.flops / self.rate, self.bytes_share * work.moved / BYTES_PER_S
        busy_s = max(arithmetic, memory) if self.overlap else arithmetic + memory
        if self.is_graph:
            return max(busy_s, work.kernels * REPLAYED_S / (self.slots if self.overlap else 1))
        return max(busy_s, work.kernels * LAUNCH_S / self.slots)

    def training_s(self, work: Work) -> float:
        """Seconds of a whole training."""
        return work.steps * self.step_s(work)

    def scores_s(self, work: Work, images_per_step: int, *, behind: int, within: int) -> float:
        """Seconds of all its scores: arithmetic of a forward pass, or the host's time between batches."""
        arithmetic = SCORING_FACTOR * SCORED * work.flops / 3 / images_per_step / self.rate
        launches = behind + (0 if self.is_graph else within)
        return max(arithmetic, SCORED / SCORING_BATCH * launches * SCORING_LAUNCH_S / self.slots)


DESIGNS = (
    Design("float32, loop, one slot (25 TFLOP/s)", 25e12),
    Design("float32, loop, one slot (40)", 40e12),
    Design("float32, graph, one slot (40)", 40e12, is_graph=True),
    Design("tf32, loop, one slot (160)", 160e12),
    Design("tf32, graph, one slot (160)", 160e12, is_graph=True),
    Design("tf32, graph, four slots that overlap (160)", 160e12, is_graph=True, slots=4, overlap=True),
    Design("bfloat16, loop, one slot (250)", 250e12, bytes_share=HALF),
    Design("bfloat16, graph, one slot (250)", 250e12, is_graph=True, bytes_share=HALF),
    Design("bfloat16, graph, four slots by turns (250)", 250e12, is_graph=True, slots=4, bytes_share=HALF),
    *(
        Design(
            f"bfloat16, graph, four slots that overlap ({rate})",
            rate * 1e12,
            is_graph=True,
            slots=4,
            overlap=True,
            bytes_share=HALF,
        )
        for rate in (160, 250, 320)
    ),
)
WITHIN = {0: 61, 1: 81, 2: 103, 3: 125}
"""Operators of a scored batch that a graph replays, by the number of transformers; 2 lies between the counted ones."""

BEHIND = {0: 13, 1: 140, 2: 267, 3: 394}
"""Those behind it, for health, which it does not."""


def rows_table(works: dict[str, Work]) -> str:
    """Single steps, in Markdown."""
    lines = ["| a step of 50 | GFLOP | GB moved | kernels | parameters, MiB |", "|---|---|---|---|---|"]
    for name, work in works.items():
        mib = work.parameters * 4 / (1 << 20)
        lines.append(f"| {name} | {work.flops / 1e9:.0f} | {work.moved / 1e9:.2f} | {work.kernels} | {mib:.0f} |")
    return "\n".join(lines)


def designs_table(all_work: Sequence[tuple[TrialSpec, Work]]) -> str:
    """Minutes of every way to compute all configurations, in Markdown."""
    head = f"| all {len(all_work)} on one H100, predicted, not measured | training, min | scores, min | together |"
    lines = [head, "|---|---|---|---|"]
    for design in DESIGNS:
        training = sum(design.training_s(work) for _, work in all_work) / 60
        scores = 0.0
        for spec, work in all_work:
            places = min(3, len(spec.transformers))
            counts = {"behind": BEHIND[places], "within": WITHIN[places]}
            scores += design.scores_s(work, spec.training.batch_size, **counts) / 60
        lines.append(f"| {design.name} | {training:.0f} | {scores:.0f} | {training + scores:.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", action="store_true", help="single steps alone")
    options = parser.parse_args(arguments)
    print(rows_table({name: work_of(spec) for name, spec in gpu.ROWS.items()}))
    if not options.rows:
        all_work = [(spec, work_of(spec)) for spec in configs_of_2015()]
        total = math.fsum(work.flops * work.steps for _, work in all_work)
        steps = sum(work.steps for _, work in all_work)
        print(f"\n{len(all_work)} configurations, {total / 1e15:.1f} PFLOP in {steps:,} steps of training\n")
        print(designs_table(all_work))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
