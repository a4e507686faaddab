"""Training throughput of stnbench beside other ways to train the same networks on the same images, in one go.

``make bench-training`` prints the tables and writes ``benchmarks/training.md``; ``--against COMMIT`` compares the
trainer here with those of other commits instead, in turn, by the CPU time of each repeat, and writes nothing.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

sys.path.append(str(Path(__file__).parent))  # last, so that statistics.py here is not Python's
from training_cases import BATCH, CASES, SIGNS, Case, data_root, draw_images

from stnbench.training.device import DeviceSpec, device_name

HERE = Path(__file__).parent
THREADS = 2
SAME_LOSS = 1e-3
"""How far the losses of the first two steps may be from those of the same mathematics by hand; later ones drift."""


class Way:
    """A process that trains one repeat whenever it is told to, with the code and the data of a tree."""

    def __init__(self, way: str, case: str, threads: int, tree: Path = HERE.parent, data: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree / 'benchmarks'}"}
        if data is not None:
            environment["STNBENCH_DATA"] = str(data)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(tree / "benchmarks" / "training_way.py"), way, case, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.name = f"{way} {case}"

    def start(self) -> None:
        """Train one repeat."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        """What it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed:\n{self.process.communicate()[1][-3000:]}")
        return json.loads(line)

    def repeat(self) -> dict:
        """Train one repeat and wait for it."""
        self.start()
        return self.answer()

    def cpu_s(self) -> float:
        """Return the seconds of CPU time that its threads have taken so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def close(self) -> None:
        """End it."""
        self.process.communicate()


@dataclass(slots=True)
class Measured:
    """Images a second of every repeat by way, with what the ways said of themselves."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    ready: dict[str, dict] = field(default_factory=dict)

    def add(self, way: str, images: float, seconds: float) -> None:
        """Note a repeat."""
        self.rates.setdefault(way, []).append(images / seconds)

    def ratios(self, way: str, base: str) -> list[float]:
        """Of one way over another, repeat by repeat: what slows the machine slows both."""
        return [one / other for one, other in zip(self.rates[way], self.rates[base], strict=True)]


def measure(name: str, repeats: int, peak: Way) -> Measured:
    """All ways on one case, in turn, so many times."""
    case, measured = CASES[name], Measured()
    alone = ["stnbench", "textbook"] + ([] if case.augment else ["bare"])
    ways = {way: Way(way, name, THREADS) for way in alone}
    beside = [Way("beside", name, 1) for _ in range(THREADS)]
    measured.ready = {way: process.answer() for way, process in ways.items()}
    for process in beside:
        process.answer()
    images = case.steps * BATCH
    for _ in range(repeats):
        for way, process in ways.items():
            measured.add(way, images, process.repeat()["seconds"])
        for process in beside:
            process.start()
        measured.add("beside", images * len(beside), max([process.answer()["seconds"] for process in beside]))
        measured.rates.setdefault("peak", []).append(peak.repeat()["gflops"])
    for process in (*ways.values(), *beside):
        process.close()
    if "bare" in ways:
        ours, bare = (measured.ready[way]["losses"] for way in ("stnbench", "bare"))
        if any(abs(one - other) > SAME_LOSS for one, other in zip(ours, bare, strict=True)):
            raise SystemExit(f"{name}: the losses are {ours} and by hand {bare}: not the same mathematics")
    return measured


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def speed_row(case: Case, measured: Measured) -> list[str]:
    """The row of a case in the first table."""
    gflop = measured.ready["stnbench"]["gflop"] / BATCH
    padding = measured.ready["stnbench"]["padding"]
    shares = [
        100 * rate * gflop / peak for rate, peak in zip(measured.rates["stnbench"], measured.rates["peak"], strict=True)
    ]
    has_bare = "bare" in measured.rates
    return [
        case.title,
        spread(measured.rates["stnbench"]),
        spread(measured.rates["bare"]) if has_bare else "",
        spread(measured.ratios("stnbench", "bare"), 3) if has_bare else "",
        spread(measured.rates["textbook"]),
        spread(measured.ratios("stnbench", "textbook"), 2),
        f"{gflop:.3f}",
        spread(shares),
        f"{statistics.median(shares) * (1 - padding):.0f}",
    ]


def slots_row(case: Case, measured: Measured) -> list[str]:
    """The row of a case in the second table."""
    ratio = measured.ratios("beside", "stnbench")
    winner = "two trials" if statistics.median(ratio) > 1 else "one trial"
    return [case.title, spread(measured.rates["stnbench"]), spread(measured.rates["beside"]), spread(ratio, 2), winner]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def render(measured: dict[str, Measured], repeats: int) -> str:
    """The tables in Markdown, with how they were made."""
    speed = [speed_row(CASES[name], found) for name, found in measured.items()]
    slots = [slots_row(CASES[name], found) for name, found in measured.items()]
    peak = [rate for found in measured.values() for rate in found.rates["peak"]]
    profiles = [
        [CASES[name].title, ", ".join(f"{key.removeprefix('aten::')} {100 * share:.1f}" for key, share in rows)]
        for name, found in measured.items()
        if (rows := found.ready["stnbench"]["profile"])
    ]
    return "\n".join(
        [
            "# Training throughput",
            "",
            f"`make bench-training` on {device_name(DeviceSpec.parse('cpu', threads=1))}, {THREADS} threads,",
            f"{platform.platform()}, torch {torch.__version__}: {repeats} repeats of all ways in turn,",
            "median (range). Ratios are taken repeat by repeat.",
            "",
            *_explanation(),
            *table(
                [
                    "network",
                    "stnbench, images/s",
                    "bare loop",
                    "over bare",
                    "textbook",
                    "over textbook",
                    "GFLOP an image",
                    "share of peak, %",
                    "without padding, %",
                ],
                speed,
            ),
            "",
            f"The machine's peak: {spread(peak)} GFLOP/s.",
            "",
            "## Two trials side by side",
            "",
            f"One trial with {THREADS} threads, and {THREADS} trials with one thread each: images/s of all together.",
            "",
            *table(["network", f"one, {THREADS} threads", f"{THREADS}, one thread", "ratio", "wins"], slots),
            "",
            "## Where the time goes",
            "",
            "torch.profiler over one repeat of stnbench's trainer: operators by their own share of the time, %.",
            "",
            *table(["network", "operators"], profiles),
            "",
        ]
    )


def _explanation() -> list[str]:
    return [
        f"All train on the same drawn signs ({SIGNS.image_size}x{SIGNS.image_size}, RGB), batch {BATCH}, SGD, with one",
        "affine transformer before the first stage, on images with global and local contrast normalisation.",
        "",
        "- **stnbench**: `training/loop.py` on a run as `run_trial` makes it; an epoch's record of its training time.",
        "  Preprocessed images are kept after the first epoch, which is not measured, unless they are augmented.",
        "- **bare loop**: the same mathematics by hand, with torch alone, in a process set up alike (threads, memory,",
        "  channels last), preprocessing every batch. The losses of its first two steps have to be the same.",
        "- **textbook**: PNG files in memory, decoded, transformed and normalised one by one by torchvision's",
        "  transforms in a DataLoader with two workers; the network by hand, torch's defaults. The clock starts when",
        "  its first batch is there.",
        "- **share of peak**: FLOPs of a step, forward and backward, as torch's FlopCounterMode counts them (two a",
        "  multiply-add; convolutions and matrix products), over those of torch.mm of 2048x2048 on the same threads.",
        "  Taps that fall on a convolution's padding are counted, and oneDNN skips them; the last column is without.",
        "",
    ]


@contextlib.contextmanager
def trees(commits: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Check out commits beside this tree for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="stnbench-training-") as folder, contextlib.ExitStack() as stack:
        found = {}
        for index, commit in enumerate(commits):
            found[commit] = Path(folder) / str(index)
            git = ["git", "-C", str(HERE.parent), "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", str(found[commit]), commit], check=True)
            stack.callback(subprocess.run, [*git, "remove", "--force", str(found[commit])], check=True)
        yield found


def compare(names: Sequence[str], commits: Sequence[str], repeats: int) -> None:
    """Print the time of a repeat here over that of other commits, by case; the order of every round is random.

    All use one thread, so that CPU time is the time of the work, whoever else uses the machine.
    """
    head = ["network", "commit", "CPU s, here", "CPU s, there", "here / there", "clock, here / there"]
    print("\n".join(table(head, [])))
    with trees(commits) as found:
        for name in names:
            ways = {"here": Way("beside", name, 1)}
            for key, tree in found.items():  # another version may keep its images otherwise
                ways[key] = Way("beside", name, 1, tree, data_root() / f"of-{key}")
            for way in ways.values():
                way.answer()
            cpu_s: dict[str, list[float]] = {key: [] for key in ways}
            clock_s: dict[str, list[float]] = {key: [] for key in ways}
            shuffled = random.Random(0)
            for _ in range(repeats):
                for key in shuffled.sample(list(ways), len(ways)):
                    before_s = ways[key].cpu_s()
                    clock_s[key].append(ways[key].repeat()["seconds"])
                    cpu_s[key].append(ways[key].cpu_s() - before_s)
            for way in ways.values():
                way.close()
            for key in found:
                cpu, clock = ([a / b for a, b in zip(s["here"], s[key], strict=True)] for s in (cpu_s, clock_s))
                row = [CASES[name].title, key, spread(cpu_s["here"], 2), spread(cpu_s[key], 2), spread(cpu, 3)]
                print(f"| {' | '.join([*row, spread(clock, 3)])} |", flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=tuple(CASES), help="one network; nothing is written then")
    parser.add_argument("--against", nargs="+", metavar="COMMIT", help="compare the trainer with those of commits")
    options = parser.parse_args()
    draw_images(THREADS)
    names = [options.only] if options.only else list(CASES)
    if options.against:
        compare(names, options.against, options.repeats)
        return
    peak = Way("peak", names[0], THREADS)
    peak.answer()
    measured = {}
    for name in names:
        measured[name] = measure(name, options.repeats, peak)
        print(" | ".join(speed_row(CASES[name], measured[name])), flush=True)
        print(" | ".join(slots_row(CASES[name], measured[name])), flush=True)
    peak.close()
    text = render(measured, options.repeats)
    print(text)
    if options.only is None:
        (HERE / "training.md").write_text(text)


if __name__ == "__main__":
    main()
