"""What stnbench does on a GPU, beside the physical limit, a loop by hand and torch.compile, in one command.

``make bench-gpu`` runs every stage within its time and writes ``benchmarks/gpu.md``; ``--dry`` runs what a CPU can of
it, at a tiny size, and writes nothing. Each stage prints one JSON line; one that fails says so, and the next begins.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

import step_cases

from stnbench.engines.slots import device_memory_mib, driver_version, visible_gpus
from stnbench.models.scored_network import measure_cost
from stnbench.spec.data import PreprocessSpec, SignsSpec
from stnbench.spec.network import IdsiaSpec, LecunSpec, ModernSpec, NetworkSpec
from stnbench.spec.optimizer import SgdSpec, TtaSpec
from stnbench.spec.sweep import SWEEPS_OF_2015
from stnbench.spec.transformer import ConvLocnetSpec, PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import ComputeOptions, Precision, TrainingSpec, TrialSpec
from stnbench.training.device import DeviceSpec, device_name, prepare_device, release_memory, synchronize
from stnbench.training.evaluate import CapturedPass, ForwardPass, evaluate
from stnbench.training.step import CapturedStep, StaticStep, TrainingRun

SIDE, CLASSES, BATCH = 48, 43, 50
RESERVED_S = 150.0
"""What the stages behind ``steps`` need: networks that come later are left out."""


@dataclass
class Bench:
    """Where and how large: ``is_dry`` for the CPU."""

    is_dry: bool
    until_s: float
    device: torch.device
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """How many steps are timed at once."""
        return 2 if self.is_dry else 150

    def left_s(self) -> float:
        """How much time is left for all."""
        return self.until_s - time.monotonic()


def placed(place: int, sizes: tuple[int, int, int], **keys: Any) -> PlacedTransformerSpec:  # noqa: ANN401 - of a specification
    """An affine transformer at a place."""
    return PlacedTransformerSpec(place=place, locnet=ConvLocnetSpec(sizes=sizes), transformer=TransformerSpec(**keys))


def row(network: NetworkSpec, *transformers: PlacedTransformerSpec, **keys: Any) -> TrialSpec:  # noqa: ANN401 - likewise
    """A trial of 2015's kind at paper size."""
    training = TrainingSpec(epochs=10, batch_size=keys.pop("batch_size", BATCH), **keys.pop("training", {}))
    return TrialSpec(
        dataset=SignsSpec(image_size=SIDE),
        network=network,
        transformers=transformers,
        training=training,
        preprocess=keys.pop("preprocess", PreprocessSpec(contrastive_norm=True)),
        **keys,
    )


ROWS = {
    "lecun 38,64,100": row(LecunSpec(sizes=(38, 64, 100))),
    "lecun 108,200,100": row(LecunSpec(sizes=(108, 200, 100))),
    "lecun 108 + 100,200,100": row(LecunSpec(sizes=(108, 200, 100)), placed(1, (100, 200, 100))),
    "idsia 200,.. + 3 STs": row(
        IdsiaSpec(sizes=(200, 250, 350, 400)),
        *(placed(place, sizes) for place, sizes in ((1, (200, 300, 200)), (2, (150,) * 3), (3, (150,) * 3))),
    ),
    "headline_2015": row(IdsiaSpec(sizes=(150, 200, 300, 350)), placed(1, (200, 300, 200)), placed(3, (150,) * 3)),
    "record": row(
        ModernSpec(sizes=(28, 56, 112, 208)),
        placed(1, (16, 32, 32), output_size=32),
        batch_size=64,
        preprocess=PreprocessSpec(contrastive_norm=False),
        augment=step_cases.VARIED,
        optimizer=SgdSpec(momentum=0.9, nesterov=True, learning_rate=0.05, weight_decay=5e-4),
        training={"label_smoothing": 0.1, "weight_average": 0.998},
    ),
}
TINY = {"lecun 4,4,4": row(LecunSpec(sizes=(4, 4, 4)), placed(1, (4, 4, 4)), batch_size=4)}


def in_precision(spec: TrialSpec, precision: Precision) -> TrialSpec:
    """The same trial in another precision."""
    return replace(spec, training=replace(spec.training, precision=precision))


def rows_of(bench: Bench) -> dict[str, TrialSpec]:
    """What is measured."""
    return TINY if bench.is_dry else ROWS


def make_run(bench: Bench, spec: TrialSpec, compute: ComputeOptions | None = None) -> TrainingRun:
    """A run on noise of paper size, prepared images kept as a trial keeps them."""
    step_cases.SIDE, step_cases.CLASSES = SIDE, CLASSES
    run = step_cases.make_run(spec, bench.device, images=60 if bench.is_dry else 8000, compute=compute)
    is_last = compute is not None and compute.channels_last
    order = torch.channels_last if is_last or bench.device.type == "cpu" else torch.contiguous_format
    run.model.network.to(memory_format=order)  # type: ignore[call-overload]
    if spec.augment is None and bench.device.type == "cuda":
        from stnbench.data.resident import PreparedImages

        prepared = PreparedImages(run.images.images, run.model.preprocess)
        run = replace(run, images=replace(run.images, prepared=prepared))
    return run


def step_ms(bench: Bench, run: TrainingRun, kind: type[StaticStep]) -> list[float]:
    """Milliseconds a step, three times."""
    step = kind(run)
    run.model.network.train()
    step.begin_epoch(0, 0)
    for _ in range(5):
        step.take()
    synchronize(bench.device)
    found = []
    for _ in range(3):
        step.begin_epoch(1, run.steps)
        count = min(bench.steps, run.steps)
        synchronize(bench.device)
        started_s = time.perf_counter()
        for _ in range(count):
            step.take()
        synchronize(bench.device)
        found.append(1e3 * (time.perf_counter() - started_s) / count)
    step.close()
    return found


def timed_ms(bench: Bench, work: Callable[[], object], repeats: int = 5) -> float:
    """The median of a call's milliseconds."""
    work()
    synchronize(bench.device)
    times = []
    for _ in range(2 if bench.is_dry else repeats):
        started_s = time.perf_counter()
        work()
        synchronize(bench.device)
        times.append(time.perf_counter() - started_s)
    return 1e3 * statistics.median(times)


def facts(bench: Bench) -> dict[str, Any]:
    """The card, the driver and the libraries."""
    gpus = visible_gpus()
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver_version(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "memory_mib": device_memory_mib(gpus),
        "mps": shutil.which("nvidia-cuda-mps-control"),
        "device": device_name(DeviceSpec.parse(str(bench.device), threads=1)),
    }
    if bench.device.type == "cuda":
        found |= {"cudnn": torch.backends.cudnn.version(), "free_mib": torch.cuda.mem_get_info()[0] >> 20}
    return found


def ceilings(bench: Bench) -> dict[str, Any]:
    """TFLOP/s of a large product and of 2015's convolutions at batch 50, forward and backward; TB/s of a copy."""
    found: dict[str, Any] = {}
    side = 128 if bench.is_dry else 8192
    kinds = {"float32": (torch.float32, False), "tf32": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}
    for name, (dtype, is_rounded) in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_rounded
        one, other = torch.randn(2, side, side, device=bench.device).to(dtype)
        ms = timed_ms(bench, lambda one=one, other=other: one @ other)  # type: ignore[misc]
        found[f"mm {name}"] = round(2 * side**3 / ms / 1e9, 2)
        for inputs, outputs, kernel, size in ((108, 200, 5, 24), (200, 250, 4, 23))[: 1 if bench.is_dry else 2]:
            shape = (2 if bench.is_dry else BATCH, inputs, size, size)
            maps = torch.randn(shape, device=bench.device).to(dtype).to(memory_format=torch.channels_last)
            weight = torch.randn(outputs, inputs, kernel, kernel, device=bench.device).to(dtype)
            maps.requires_grad_(), weight.requires_grad_()
            up = torch.randn_like(functional.conv2d(maps, weight, padding=2))

            def both(maps: Tensor = maps, weight: Tensor = weight, up: Tensor = up) -> object:
                return torch.autograd.grad(functional.conv2d(maps, weight, padding=2), (maps, weight), up)

            flops = 6 * up.numel() * inputs * kernel**2
            found[f"conv {inputs}-{outputs} k{kernel} {name}"] = round(flops / timed_ms(bench, both, 20) / 1e9, 2)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    big = torch.empty(1 << (20 if bench.is_dry else 30), dtype=torch.uint8, device=bench.device)
    found["copy TB/s"] = round(2 * len(big) / timed_ms(bench, big.clone) / 1e9, 3)
    return found


Way = tuple[str, type[StaticStep], ComputeOptions]
"""Its name, how a step is taken, and the options of the model."""


def ways_of(bench: Bench) -> list[Way]:
    """Every way to take a step with torch's kernels: order in memory, loop or graph, and padded channels."""
    nchw, nhwc = ComputeOptions(), ComputeOptions(channels_last=True)
    padded = ComputeOptions(channels_last=True, padded_channels=True)
    found: list[Way] = [
        ("nchw loop", StaticStep, nchw),
        ("nhwc loop", StaticStep, nhwc),
        ("nhwc loop padded", StaticStep, padded),
    ]
    if bench.device.type == "cuda":
        found += [
            ("nchw graph", CapturedStep, nchw),
            ("nhwc graph", CapturedStep, nhwc),
            ("nhwc graph padded", CapturedStep, padded),
        ]
    return found


def scoring(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a batch of 250 images that is scored, kernel by kernel and by graph, with two views as well."""
    found: dict[str, Any] = {}
    for name, spec in rows_of(bench).items():
        own = in_precision(spec, "float32" if bench.is_dry else "bfloat16")
        for label, tta in (("one view", None), ("two views", TtaSpec(zooms=(1.0, 1.1)))):
            run = make_run(bench, replace(own, tta=tta), ComputeOptions(channels_last=True))
            passes = {"loop": ForwardPass(run.model)}
            if bench.device.type == "cuda":
                passes["graph"] = CapturedPass(run.model, bench.device)
            for way, forward in passes.items():
                rows = run.images.all_rows()[: 50 if bench.is_dry else 2000]
                evaluate(run.model, run.images, rows, forward=forward)
                ms = timed_ms(
                    bench,
                    lambda run=run, rows=rows, forward=forward: evaluate(run.model, run.images, rows, forward=forward),
                )  # type: ignore[misc]
                found[f"{name}, {label}, {way}"] = round(ms * 250 / len(rows), 3)
    return found


def steps(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a step by row, precision, order in memory, and way; TFLOP/s behind it."""
    found: dict[str, Any] = {}
    precisions: tuple[Precision, ...] = ("float32",) if bench.is_dry else ("float32", "tf32", "bfloat16")
    for name, spec in rows_of(bench).items():
        line: dict[str, Any] = {}
        for precision in precisions:
            line |= times_of(bench, in_precision(spec, precision), ways_of(bench))
        found[name] = line
        print(json.dumps({name: line}), flush=True)
        if bench.left_s() < RESERVED_S and not bench.is_dry:
            break
    return found


def times_of(bench: Bench, spec: TrialSpec, ways: Sequence[Way]) -> dict[str, Any]:
    """Milliseconds and TFLOP/s of every way to take the steps of a trial; one that fails says so."""
    precision = spec.training.precision
    gflop = 3 * measure_cost(spec, classes=CLASSES).flops * spec.training.batch_size / 1e9
    line: dict[str, Any] = {"gflop": round(gflop, 1)}
    prepare_device(DeviceSpec.parse(str(bench.device), threads=1 if bench.is_dry else 8), precision)
    for label, kind, compute in ways:
        try:
            ms = step_ms(bench, make_run(bench, spec, compute), kind)
        except Exception as error:  # noqa: BLE001 - the next way is measured all the same
            line[f"{precision} {label}"] = f"{type(error).__name__}: {error}"[:200]
        else:
            rate = round(gflop / min(ms), 2)
            line[f"{precision} {label}"] = {"ms": [round(value, 3) for value in ms], "tflops": rate}
        release_memory(str(bench.device))
    return line


def kernels(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a step in bfloat16 with kernels in Triton, last of all: a fault of one would end all others."""
    if bench.is_dry:
        return {"skipped": "Triton's kernels need a GPU; tests/unit/nn/test_fused.py interprets them"}
    nhwc = ComputeOptions(channels_last=True)
    fused = replace(nhwc, fused_kernels=True)
    ways: list[Way] = [
        ("nhwc graph", CapturedStep, nhwc),
        ("nhwc graph fused", CapturedStep, fused),
        ("nhwc graph padded fused", CapturedStep, replace(fused, padded_channels=True)),
    ]
    found: dict[str, Any] = {}
    for name, spec in rows_of(bench).items():
        if bench.left_s() > 15:
            found[name] = times_of(bench, in_precision(spec, "bfloat16"), ways)
    return found


class ByHand(nn.Module):
    """lecun with an affine transformer as a textbook has it: nothing of stnbench is in it."""

    def __init__(self, sizes: tuple[int, int, int], locnet: tuple[int, int, int], side: int) -> None:
        super().__init__()
        a, b, hidden = sizes
        p, q, r = locnet
        small = side // 8
        self.locate = nn.Sequential(
            *(nn.MaxPool2d(2), nn.Conv2d(3, p, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(p, q, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(q * small**2, r), nn.ReLU(), nn.Linear(r, 6)),
        )
        last = self.locate[-1]
        nn.init.zeros_(last.weight)
        last.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.classify = nn.Sequential(
            *(nn.Conv2d(3, a, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(b * (side // 4) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        theta = self.locate(images).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=True)
        logits: Tensor = self.classify(functional.grid_sample(images, grid, align_corners=True))
        return logits


def others(bench: Bench) -> dict[str, Any]:
    """The same network without contrastive norms, by hand: eager, and by torch.compile the textbook's way."""
    found: dict[str, Any] = {}
    sizes, locnet = ((4, 4, 4), (4, 4, 4)) if bench.is_dry else ((108, 200, 100), (100, 200, 100))
    images = torch.randn(8 if bench.is_dry else 4000, 3, SIDE, SIDE, device=bench.device)
    labels = torch.randint(0, CLASSES, (len(images),), device=bench.device)
    for way in ("by hand", "torch.compile", "torch.compile max-autotune"):
        if way != "by hand" and (bench.is_dry or bench.left_s() < 90):
            continue
        torch.manual_seed(1)
        network = ByHand(sizes, locnet, SIDE).to(bench.device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        started_s = time.perf_counter()
        model: Any = network if way == "by hand" else torch.compile(network, mode=way.partition(" ")[2] or None)
        size = 4 if bench.is_dry else BATCH

        def step(
            start: int, model: nn.Module = model, optimizer: torch.optim.SGD = optimizer, size: int = size
        ) -> None:
            optimizer.zero_grad()
            functional.cross_entropy(model(images[start : start + size]), labels[start : start + size]).backward()
            optimizer.step()

        try:
            for index in range(3):
                step(index % 2)
            synchronize(bench.device)
            ready_s, started_s = time.perf_counter() - started_s, time.perf_counter()
            for index in range(bench.steps):
                step(index * size % (len(images) - size))
            synchronize(bench.device)
        except Exception as error:  # noqa: BLE001 - the next way is measured all the same
            found[way] = f"{type(error).__name__}: {error}"[:200]
            continue
        ms = 1e3 * (time.perf_counter() - started_s) / bench.steps
        found[way] = {"ms": round(ms, 3), "ready_s": round(ready_s, 1)}
    return found


def child(name: str, way: str, seconds: float) -> None:
    """Steps a second of one process of several, between two agreed moments."""
    bench = Bench(is_dry=not torch.cuda.is_available(), until_s=1e9, device=_device())
    prepare_device(DeviceSpec.parse(str(bench.device), threads=1), "bfloat16")
    spec = in_precision(rows_of(bench)[name], "bfloat16")
    run = make_run(bench, spec, ComputeOptions(channels_last=True))
    step: StaticStep = CapturedStep(run) if way == "graph" else StaticStep(run)
    run.model.network.train()
    step.begin_epoch(0, 0)
    for _ in range(5):
        step.take()
    synchronize(bench.device)
    print("ready", flush=True)
    sys.stdin.readline()
    started_s, count, epoch = time.perf_counter(), 0, 1
    while time.perf_counter() - started_s < seconds:
        step.begin_epoch(epoch, epoch * run.steps)
        for _ in range(min(run.steps, 50)):
            step.take()
            count += 1
        synchronize(bench.device)
        epoch += 1
    print(count / (time.perf_counter() - started_s), flush=True)


def sharing(bench: Bench) -> dict[str, Any]:
    """Steps a second of 1 to 8 processes that share the device, by time slices and under MPS where its daemon is."""
    found: dict[str, Any] = {}
    name = next(iter(TINY)) if bench.is_dry else "lecun 108 + 100,200,100"
    counts, ways = ((1,), ("loop",)) if bench.is_dry else ((1, 2, 4, 8), ("loop", "graph"))
    daemons: list[str] = ["", "mps"] if shutil.which("nvidia-cuda-mps-control") and not bench.is_dry else [""]
    for daemon in daemons:
        environment = dict(os.environ)
        try:
            with _mps(environment) if daemon else contextlib.nullcontext():
                for way in ways:
                    for count in counts:
                        if bench.left_s() > 30:
                            found[f"{way} x{count} {daemon}".strip()] = _share(name, way, count, environment)
        except (OSError, subprocess.SubprocessError, ValueError) as error:  # what was measured before stays
            found[f"failed {daemon}".strip()] = f"{type(error).__name__}: {error}"[:400]
    return found


@contextlib.contextmanager
def _mps(environment: dict[str, str]) -> Iterator[None]:
    """Run NVIDIA's daemon for the block, for processes with the environment, which is changed."""
    folder = Path("/tmp/stnbench-mps")  # noqa: S108 - its pipes need a short path
    folder.mkdir(exist_ok=True)
    environment |= {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    started = ["nvidia-cuda-mps-control", "-d"]
    subprocess.run(started, env=environment, check=True, timeout=20, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        stop = ["nvidia-cuda-mps-control"]
        subprocess.run(stop, input="quit\n", text=True, env=environment, check=False, timeout=20)


def _share(name: str, way: str, count: int, environment: dict[str, str]) -> float:
    """Steps a second of all processes together, which begin at the same moment.

    Raises:
        OSError, ValueError: where one has ended before.
        subprocess.TimeoutExpired: where one does not end.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name, way, "0.2" if name in TINY else "3"]
    own = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(count)
    ]
    try:
        for process in own:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise ValueError(f"a process of {count} ended with {process.wait(20)} before it began")
        for process in own:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return round(sum(float(process.communicate(timeout=60)[0]) for process in own), 1)
    finally:
        for process in own:
            process.kill()
            process.wait()


def specs_of(sweeps: Sequence[str], folder: Path, *overrides: str) -> list[TrialSpec]:
    """Every trial of some sweeps, composed as the command does."""
    from stnbench.config.axes import PointComposer
    from stnbench.config.compose import Composer
    from stnbench.config.locate import conf_folder, find_sweep
    from stnbench.config.resolve import parse_overrides
    from stnbench.config.sweeps import read_sweep
    from stnbench.planning import survey

    composer, specs = Composer(conf_folder()), list[TrialSpec]()
    for name in sweeps:
        sweep = read_sweep(find_sweep(name, folder), composer, parse_overrides(overrides))
        specs += survey(sweep, PointComposer(sweep, composer))
    return specs


def configs_of_2015() -> list[tuple[float, float]]:
    """GFLOP an image and images of all epochs, of each distinct configuration of 2015's tables."""
    configs = {spec.config_id: spec for spec in specs_of(SWEEPS_OF_2015, HERE.parent, "scale=paper")}
    found = []
    for spec in configs.values():
        images = spec.training.train_images or 39_209
        found.append((measure_cost(spec, classes=CLASSES).flops / 1e9, float(images * spec.training.epochs)))
    return found


def draw_images(scale: str) -> None:
    """Draw what the rows and 2015's tables train on, before anything is measured."""
    from stnbench.core.files import data_root
    from stnbench.core.process import available_cores
    from stnbench.data.build import open_dataset

    folder = _sweep_folder()
    specs = specs_of(("gpu_rows", *SWEEPS_OF_2015), folder, f"scale={scale}", "dataset=signs")
    for dataset in dict.fromkeys(spec.dataset for spec in specs):
        images = open_dataset(dataset, root=data_root(), workers=max(1, available_cores() // 2))
        images.train()
        images.test()


def _sweep_folder() -> Path:
    """A folder to work in, whose sweeps the command finds beside the shipped ones."""
    folder = Path(os.environ.get("STNBENCH_RUNS") or "runs").resolve() / "bench-gpu"
    (folder / "sweeps").mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "gpu_rows.yaml", folder / "sweeps")
    return folder


def rows(bench: Bench) -> dict[str, Any]:
    """Eight rows through the product, one trial at once and four, summed over 2015's tables by a line through them."""
    found: dict[str, Any] = {}
    folder = _sweep_folder()
    scale = "smoke" if bench.is_dry else "paper_fast"
    for slots, seed in ((1, 1), (4, 2)):
        environment = {
            **os.environ,
            "STNBENCH_RUNS": str(folder / "runs"),
            "STNBENCH_COMPUTE": "channels_last,cuda_graphs",
        }
        environment.setdefault("STNBENCH_DATA", str(Path("data").resolve()))
        command = [sys.executable, "-m", "stnbench.sweep", "gpu_rows", f"scale={scale}", "dataset=signs"]
        command += ["training.epochs=2", f"seeds=[{seed}]", "--slots-per-gpu", str(slots), "--no-mlflow", "--json"]
        if bench.is_dry:
            environment["STNBENCH_COMPUTE"] = "channels_last"
            command += ["--max-trials", "1"]
        limit_s = max(30.0, min(110.0, bench.left_s() - 20))
        command += ["--budget", f"{limit_s:.0f}s"]
        line = _run(command, environment, folder, limit_s + 90)
        if (folder / "runs" / "stnbench.db").exists():
            line |= _epoch_times(folder / "runs", seed)
        found[f"{slots} a GPU"] = line
        if bench.is_dry or bench.left_s() < 60:
            break
    return found


def _epoch_times(runs: Path, seed: int) -> dict[str, Any]:
    """Seconds of the last epoch and its evaluation by cost, and what that means for all of 2015's tables."""
    from stnbench.store.store import Store

    points = []
    with Store.open(runs / "stnbench.db", writable=False) as store:
        for record in store.sweeps():
            for trial in store.sweep_trials(record.spec.name):
                epochs = store.epochs_of_trial(trial.trial_id)
                if trial.spec.seed == seed and epochs:
                    last = epochs[-1].record
                    gflop = measure_cost(trial.spec, classes=CLASSES).flops / 1e9
                    points.append((gflop, last.train_duration_s, epochs[0].record.evaluate_duration_s))
    line: dict[str, Any] = {"epochs": [[round(value, 3) for value in point] for point in points]}
    if len(points) > 2:
        gflops, training_s, scoring_s = (
            torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True)
        )
        ones = torch.stack([torch.ones_like(gflops), gflops], dim=1)
        base, slope = torch.linalg.lstsq(ones, training_s[:, None]).solution[:, 0].tolist()
        base_e, slope_e = torch.linalg.lstsq(ones, scoring_s[:, None]).solution[:, 0].tolist()
        configs = configs_of_2015()
        train = sum((base + slope * gflop) * images / 20_000 for gflop, images in configs)
        score = sum(10 * (base_e + slope_e * gflop) for gflop, _ in configs)
        line |= {"cells": len(configs), "minutes_alone": round((train + score) / 60, 1)}
        line["note"] = "extrapolated; with k trials at once divide by k, for their times overlap"
    return line


def recipes(bench: Bench) -> dict[str, Any]:
    """headline_2015 and the record, one epoch each through the product, and what all their epochs would take."""
    found: dict[str, Any] = {}
    if bench.is_dry:
        return {"skipped": "minutes on a CPU; benchmarks/training.md has a CPU's times"}
    folder = _sweep_folder()
    for name, epochs in (("headline_2015", 14), ("record", 0)):
        environment = {
            **os.environ,
            "STNBENCH_RUNS": str(folder / name),
            "STNBENCH_COMPUTE": "channels_last,cuda_graphs",
        }
        environment.setdefault("STNBENCH_DATA", str(Path("data").resolve()))
        command = [sys.executable, "-m", "stnbench.train", f"experiment={name}", "dataset=signs", "training.epochs=2"]
        command += ["training.precision=bfloat16", "--json"]
        found[name] = {**_run(command, environment, folder, 180), "all_epochs": epochs}
    return found


def _run(command: Sequence[str], environment: dict[str, str], folder: Path, limit_s: float) -> dict[str, Any]:
    """Run a command of stnbench: how it ended, its seconds, and its last words where it failed."""
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"exit": f"none within {limit_s:.0f} s"}
    line: dict[str, Any] = {"exit": done.returncode, "wall_s": round(time.monotonic() - started_s, 1)}
    return line if done.returncode in (0, 1) else line | {"said": done.stderr[-1500:]}


STAGES: dict[str, tuple[Callable[[Bench], dict[str, Any]], float]] = {
    "facts": (facts, 5),
    "ceilings": (ceilings, 20),
    "steps": (steps, 60),
    "scoring": (scoring, 20),
    "others": (others, 20),
    "sharing": (sharing, 40),
    "rows": (rows, 100),
    "recipes": (recipes, 60),
    "kernels": (kernels, 20),
}


def render(found: dict[str, Any]) -> str:
    """What was found, in Markdown."""
    told = found.get("facts", {})
    lines = [
        "# On a GPU",
        "",
        (
            f"`make bench-gpu` on {told.get('device')}, driver {told.get('driver')}, torch {told.get('torch')},"
            f" CUDA {told.get('cuda')}."
        ),
        "",
        "## Steps",
        "",
        "Milliseconds of a training step at paper size (fastest of three, and range), TFLOP/s, and the share of the",
        "rate of this card's own convolutions in the same precision (`ceilings`, 108 to 200 channels, batch 50).",
        "",
        "| network | way | ms | TFLOP/s | of the limit |",
        "|---|---|---|---|---|",
    ]
    limits = found.get("ceilings", {})
    for name, ways in found.get("steps", {}).items():
        for way, measured in ways.items():
            if isinstance(measured, dict):
                limit = limits.get(f"conv 108-200 k5 {way.split()[0]}")
                share = f"{100 * measured['tflops'] / limit:.0f} %" if limit else ""
                ms = measured["ms"]
                lines.append(f"| {name} | {way} | {min(ms)} ({min(ms)}-{max(ms)}) | {measured['tflops']} | {share} |")
            elif way != "gflop":
                lines.append(f"| {name} | {way} | {measured} | | |")
    for stage in ("ceilings", "scoring", "others", "sharing", "rows", "recipes", "kernels"):
        lines += ["", f"## {stage.capitalize()}", "", str(STAGES[stage][0].__doc__).splitlines()[0], "", "```"]
        lines += [json.dumps({key: value}) for key, value in found.get(stage, {"not run": True}).items()]
        lines.append("```")
    return "\n".join([*lines, ""])


def _device() -> torch.device:
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", default=list(STAGES), help="which of them (default: all)")
    parser.add_argument("--dry", action="store_true", help="tiny, on the CPU; nothing is written")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for all of them")
    parser.add_argument("--out", type=Path, default=HERE / "gpu.md")
    parser.add_argument("--draw", action="store_true", help="draw the images that rows train on, and measure nothing")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command: 0 where all stages that ran succeeded, 1 where one failed, 2 without a GPU."""
    options = _parser().parse_args(arguments)
    if options.child:
        child(options.child[0], options.child[1], float(options.child[2]))
        return 0
    if options.draw:
        draw_images("smoke" if options.dry else "paper_fast")
        return 0
    if not options.dry and not torch.cuda.is_available():
        print("error: no GPU is there; --dry runs what a CPU can", file=sys.stderr)
        return 2
    device = torch.device("cpu") if options.dry else _device()
    bench = Bench(is_dry=options.dry, until_s=time.monotonic() + options.limit, device=device)
    prepare_device(DeviceSpec.parse(str(device), threads=1 if options.dry else 8))
    failed = sum([not run_stage(bench, name, options.out) for name in options.stages])
    if options.dry:
        print(render(bench.found), file=sys.stderr)
    return 1 if failed else 0


def run_stage(bench: Bench, name: str, out: Path) -> bool:
    """Run one stage where time is left, print what it found, and write all that was found; False where it failed."""
    work, needed_s = STAGES[name]
    succeeded = True
    if bench.left_s() < needed_s and not bench.is_dry:
        bench.found[name] = {"not run": "no time was left"}
    else:
        try:
            bench.found[name] = work(bench)
        except Exception:  # noqa: BLE001 - the next stage is run all the same
            succeeded = False
            bench.found[name] = {"failed": traceback.format_exc()[-2000:]}
    print(json.dumps({name: bench.found[name]}), flush=True)
    if not bench.is_dry:
        out.write_text(render(bench.found))
    return succeeded


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
