"""One way to train, in a process of its own: ``python training_way.py WAY CASE THREADS``.

It says that it is ready with a line of JSON, waits for a line, trains one repeat and answers with a line, until its
input ends.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.append(str(Path(__file__).parent))  # last, so that statistics.py here is not Python's
from training_cases import BATCH, CASES, Case, open_data, open_run
from training_networks import LocalContrast, Network, gaussian, lecun, modern, take_weights

from stnbench.data.preprocessing import GlobalStatistics
from stnbench.data.resident import epoch_order
from stnbench.spec.network import LecunSpec
from stnbench.training.loop import Hooks, Progress, train
from stnbench.training.step import StaticStep, TrainingRun

SIDE = 48
LOADER_WORKERS = 2
PEAK_SIDE = 2048

Repeat = Callable[[], dict[str, float]]


def stnbench_way(case: Case, threads: int) -> tuple[dict[str, object], Repeat]:
    """The trainer of stnbench, with what its work is and where its time goes."""
    run = _open_short_run(case, threads)
    step = StaticStep(run)
    step.begin_epoch(0, 0)
    run.model.network.train()
    for _ in range(2):
        step.take()
    losses = step.losses.tolist()
    repeat = _epochs(run)
    repeat()
    return {"losses": losses, **_work(case), "profile": _profile(repeat)}, repeat


def beside_way(case: Case, threads: int) -> tuple[dict[str, object], Repeat]:
    """The trainer of stnbench."""
    repeat = _epochs(_open_short_run(case, threads))
    repeat()
    return {}, repeat


def bare_way(case: Case, threads: int) -> tuple[dict[str, object], Repeat]:
    """The same mathematics in a loop by hand, in a process with the same settings, on images in memory."""
    data = open_data(threads)
    run = open_run(case, data)
    network = _by_hand(case)
    take_weights(network, run.model.network)
    network = network.to(memory_format=torch.channels_last)
    prepare = LocalContrast(gaussian(), SIDE)
    images, labels = data.images.images, data.images.labels
    mean, std = data.statistics.mean, data.statistics.std
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    batches, first = _batches(run), list[float]()

    def repeat() -> dict[str, float]:
        started_s, losses = time.perf_counter(), []
        for batch in batches:
            with torch.no_grad():
                x = prepare(images[batch].float().mul(1 / (255 * std)).add_(-mean / std))
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        first.extend(torch.stack(losses).tolist())
        return {"seconds": time.perf_counter() - started_s}

    repeat()
    return {"losses": first[:2]}, repeat


class Files(Dataset[tuple[Tensor, int]]):
    """The textbook's data set: compressed images, decoded, transformed and normalised one by one."""

    def __init__(self, images: Tensor, labels: Tensor, change: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.labels, self.change = [_png(image) for image in images], labels.tolist(), change

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(io.BytesIO(self.files[index])) as image:
            return self.change(image.convert("RGB")), self.labels[index]


def textbook_way(case: Case, threads: int) -> tuple[dict[str, object], Repeat]:
    """Transforms of torchvision in a DataLoader with workers, the network by hand, torch as it comes.

    The clock starts when the first batch has come, so that filling the pipeline does not count.
    """
    torch.set_num_threads(threads)
    data = open_data(threads)
    torch.use_deterministic_algorithms(mode=False)
    rows = _batches(open_run(case, data)).flatten()
    change = _transforms(case, data.statistics)
    loader = DataLoader(
        Files(data.images.images[rows], data.images.labels[rows], change),
        batch_size=BATCH,
        shuffle=True,
        num_workers=LOADER_WORKERS,
        persistent_workers=True,
        drop_last=True,
    )
    network = _by_hand(case)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def repeat() -> dict[str, float]:
        started_s, losses = 0.0, []
        for x, labels in loader:
            started_s = started_s or time.perf_counter()
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return {"seconds": time.perf_counter() - started_s}

    repeat()
    return {}, repeat


def peak_way(_case: Case, threads: int) -> tuple[dict[str, object], Repeat]:
    """Products of two matrices of 2048 x 2048; the rate is in GFLOP/s."""
    torch.set_num_threads(threads)
    a, b = torch.randn(2, PEAK_SIDE, PEAK_SIDE)
    out = torch.mm(a, b)

    def repeat() -> dict[str, float]:
        started_s = time.perf_counter()
        for _ in range(8):
            torch.mm(a, b, out=out)
        return {"gflops": 8 * 2 * PEAK_SIDE**3 / (time.perf_counter() - started_s) / 1e9}

    repeat()
    return {}, repeat


def _open_short_run(case: Case, threads: int) -> TrainingRun:
    """The run of a trial, with one validation batch, whose time does not count."""
    run = open_run(case, open_data(threads))
    return replace(run, validation=run.validation[:BATCH])


def _epochs(run: TrainingRun) -> Repeat:
    """One epoch a repeat; its training time is what its record says."""
    hooks = Hooks(save=lambda _: None, report=lambda _: None, should_stop=lambda: False)

    def repeat() -> dict[str, float]:
        (record,) = train(run, hooks, Progress()).progress.records
        return {"seconds": record.train_duration_s}

    return repeat


def _by_hand(case: Case) -> Network:
    network = case.network
    if isinstance(network, LecunSpec):
        return lecun(network.sizes, case.locnet, SIDE)
    return modern(network.sizes, case.locnet, SIDE, case.output_size or SIDE)


def _batches(run: TrainingRun) -> Tensor:
    """The rows (steps, batch) of an epoch, in the order in which stnbench visits them."""
    return epoch_order(run.train, seed=run.spec.seed, epoch=0).view(-1, BATCH)


def _transforms(case: Case, statistics: GlobalStatistics) -> Callable[[Image.Image], Tensor]:
    norm = LocalContrast(gaussian(), SIDE)
    spec = case.augment
    varied = []
    if spec is not None:
        varied = [
            transforms.RandomAffine(
                spec.rotation_deg,
                (spec.translation,) * 2,
                (1 - spec.scale, 1 + spec.scale),
                interpolation=Image.BILINEAR,
            ),
            transforms.ColorJitter(spec.brightness, spec.contrast, spec.saturation),
        ]
    return transforms.Compose(
        [
            transforms.Resize((SIDE, SIDE)),
            *varied,
            transforms.ToTensor(),
            transforms.Normalize([statistics.mean] * 3, [statistics.std] * 3),
            transforms.Lambda(lambda x: norm(x[None])[0]),
        ]
    )


def _png(image: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def _work(case: Case) -> dict[str, object]:
    """FLOPs of one step, forward and backward, as torch counts them, and the share of them spent on padding."""
    network = _by_hand(case)
    padded: list[tuple[int, float]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, _, out: padded.append(_padding(conv, out)))
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(BATCH, 3, SIDE, SIDE)).sum().backward()
    flops = sum(count for count, _ in padded)
    return {
        "gflop": counter.get_total_flops() / 1e9,
        "padding": sum(count * share for count, share in padded) / flops,
    }


def _padding(conv: nn.Conv2d, out: Tensor) -> tuple[int, float]:
    """FLOPs of a convolution's forward pass, and the share of its taps that fall outside the map."""
    side, kernel, padding = out.shape[-1], conv.kernel_size[0], int(conv.padding[0])
    inside = 1 - 2 * sum(range(1, padding + 1)) / (kernel * side)
    return 2 * out.numel() * conv.weight[0].numel(), 1 - inside**2


def _profile(repeat: Repeat) -> list[tuple[str, float]]:
    """The operators that take most of a repeat, with their own shares of its time."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        repeat()
    rows = profiled.key_averages()
    total = sum(row.self_cpu_time_total for row in rows)
    top = sorted(rows, key=lambda row: -row.self_cpu_time_total)[:8]
    return [(row.key, row.self_cpu_time_total / total) for row in top]


WAYS = {"stnbench": stnbench_way, "beside": beside_way, "bare": bare_way, "textbook": textbook_way, "peak": peak_way}


def serve(way: str, case: str, threads: int, lines: Iterator[str]) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    ready, repeat = WAYS[way](CASES[case], threads)
    print(json.dumps(ready), file=answers)
    for _ in lines:
        print(json.dumps(repeat()), file=answers)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), iter(sys.stdin.readline, ""))
