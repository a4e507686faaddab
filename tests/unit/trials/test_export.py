"""A trained network leaves as a folder and comes back bit for bit; whatever else is in such a folder is refused."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stnbench.core.errors import CheckpointError, ExportError, ShapeError
from stnbench.core.files import file_sha256
from stnbench.spec.data import PreprocessSpec
from stnbench.spec.optimizer import TtaSpec
from stnbench.spec.result import TrialResult
from stnbench.spec.transformer import PlacedTransformerSpec, TransformerSpec
from stnbench.spec.trial import TrialSpec
from stnbench.trials.export import (
    SUMS,
    WEIGHTS,
    ExportRecord,
    HalfCheck,
    StoredNetwork,
    TrainedClassifier,
    new_record,
    read_export,
    read_record,
    write_export,
)
from stnbench.trials.files import load_result
from stnbench.trials.run import run_trial
from stnbench.trials.score import compare_networks

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ROI = PlacedTransformerSpec(place=1, transformer=TransformerSpec(family="roi"), locnet=None)


def train(spec: TrialSpec, folder: Path) -> TrialResult:
    """A finished trial in the folder."""
    finished = run_trial(
        spec, token="t", folder=folder, data_root=folder, device="cpu", threads=1, report=lambda record: None,
        should_stop=lambda: False,
    )  # fmt: skip
    assert finished is not None
    return finished


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first test that needs a finished trial leaves it for the others."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def result(kept: Path, tmp_path: Path, toy_dataset: Any, toy_spec: TrialSpec) -> TrialResult:
    """A finished trial in ``tmp_path / "attempt"``."""
    if not (kept / "attempt" / "result.json").exists():
        train(toy_spec, kept / "attempt")
    shutil.copytree(kept / "attempt", tmp_path / "attempt")
    return load_result(tmp_path / "attempt" / "result.json")


def record_of(stored: StoredNetwork, result: TrialResult) -> ExportRecord:
    """What is said of the network."""
    return new_record(
        stored, name="toy", validation=replace(result.validation, predictions=(), scored=None), test=None,
        cost=result.cost, environment=result.environment, train_duration_s=1.0,
    )  # fmt: skip


def card(sizes: Mapping[str, int], difference: float | None) -> str:
    """A card of what it is told."""
    return f"{sorted(sizes)} {difference}"


@pytest.fixture
def exported(tmp_path: Path, result: TrialResult) -> Path:
    """The trial's export, without ONNX."""
    stored = StoredNetwork.of_attempt(tmp_path / "attempt")
    write_export(tmp_path / "out", stored, record_of(stored, result), card, with_onnx=False)
    return tmp_path / "out"


def images(count: int = 5, seed: int = 3) -> torch.Tensor:
    """Random images of the toy's size."""
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_an_export_reads_back_bit_for_bit(tmp_path: Path, exported: Path) -> None:
    """Weights and logits are those of the attempt."""
    trained, back = StoredNetwork.of_attempt(tmp_path / "attempt"), read_export(exported)

    assert (back.spec, back.statistics, back.class_names) == (trained.spec, trained.statistics, trained.class_names)
    assert {*back.weights} == {*trained.weights}
    assert all(torch.equal(back.weights[name], trained.weights[name]) for name in trained.weights)
    assert torch.equal(TrainedClassifier(back, CPU)(images()), TrainedClassifier(trained, CPU)(images()))


def test_half_precision_reads_back_as_the_rounded_network(tmp_path: Path, result: TrialResult) -> None:
    """What is loaded is what was rounded, bit for bit, in float32; the file has half the size, and counters stay."""
    trained = StoredNetwork.of_attempt(tmp_path / "attempt")
    rounded = trained.rounded_to_half()
    record = replace(record_of(rounded, result), half=HalfCheck(images=9, changed=1), note="Held out: 5 %.")
    for folder, stored, own in (("full", trained, record_of(trained, result)), ("half", rounded, record)):
        write_export(tmp_path / folder, stored, own, card, with_onnx=False)

    back = read_export(tmp_path / "half")

    assert read_record(tmp_path / "half") == record
    for name, tensor in trained.weights.items():
        assert back.weights[name].dtype == tensor.dtype
        is_float = tensor.is_floating_point()
        assert torch.equal(back.weights[name], tensor.half().float() if is_float else tensor)
    assert torch.equal(TrainedClassifier(back, CPU)(images()), TrainedClassifier(rounded, CPU)(images()))
    sizes = [(tmp_path / folder / WEIGHTS).stat().st_size for folder in ("full", "half")]
    saved = 2 * sum(tensor.numel() for tensor in trained.weights.values() if tensor.is_floating_point())
    assert sizes[0] - sizes[1] == pytest.approx(saved, abs=256)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path, result: TrialResult) -> None:
    """They would become infinite; the message names the first."""
    trained = StoredNetwork.of_attempt(tmp_path / "attempt")
    name = next(name for name, tensor in trained.weights.items() if tensor.is_floating_point())
    weights = {**trained.weights, name: torch.full_like(trained.weights[name], 7e4)}
    with pytest.raises(ExportError, match=f"{name} of the trial .* is beyond the range"):
        replace(trained, weights=weights).rounded_to_half()


def test_networks_are_compared_image_by_image(tmp_path: Path, result: TrialResult) -> None:
    """A network agrees with itself; with its classes exchanged it says other things, and errs on other images."""
    trained = StoredNetwork.of_attempt(tmp_path / "attempt")
    where: dict[str, Any] = {"data_root": tmp_path, "source": None, "threads": 1}
    name = [name for name, tensor in trained.weights.items() if tensor.shape[:1] == (trained.classes,)]
    turned = replace(trained, weights={key: t.flip(0) if key in name[-2:] else t for key, t in trained.weights.items()})
    for split in ("train", "validation"):
        same = compare_networks(trained, trained, split, **where)
        assert (same.changed, same.flipped) == (0, 0)
        other = compare_networks(trained, turned, split, **where)
        assert other.images == same.images > 0
        assert other.changed >= other.flipped
        assert other.changed > 0


@pytest.mark.parametrize("views", [None, TtaSpec(shift=0.1)])
def test_a_trained_network_says_what_its_trial_was_scored_on(
    tmp_path: Path, toy_dataset: Any, toy_spec: TrialSpec, views: TtaSpec | None
) -> None:
    """Image by image, over views as well; uint8 images and floats of the same levels alike."""
    scored = train(replace(toy_spec, tta=views), tmp_path / "attempt")
    network = TrainedClassifier(StoredNetwork.of_attempt(tmp_path / "attempt"), CPU)
    held_out = scored.validation.scored
    assert held_out is not None
    shown = torch.from_numpy(toy_dataset.train().images[list(held_out.rows)])

    prediction = network.predict(shown)

    assert tuple(prediction.labels.tolist()) == scored.validation.predictions
    assert torch.equal(network(shown), network(shown.float()))
    assert prediction.probabilities.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert prediction.names == tuple(network.class_names[label] for label in prediction.labels)
    assert not network.training


def test_images_of_another_size_are_refused(exported: Path) -> None:
    """The message says which size the network takes."""
    network = TrainedClassifier(read_export(exported), CPU)
    with pytest.raises(ShapeError, match=r"expected \(batch, 3, 16, 16\)"):
        network(torch.zeros(2, 3, 17, 16))


def change_byte(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["network.safetensors", "trial.json", "README.md", SUMS])
@pytest.mark.parametrize("damage", [change_byte, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_export_is_refused_in_a_line(exported: Path, name: str, damage: Callable[[Path], None]) -> None:
    """One bit of any file, a file that is gone, a file that is empty."""
    damage(exported / name)
    with pytest.raises(ExportError) as caught:
        read_export(exported)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def reseal(folder: Path) -> None:
    """Write digests that fit, as somebody would who forges an export."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{file_sha256(folder / name)}  {name}\n" for name in names))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "is an export of format 2"),
        ({"spec": {}}, "is no export that this version reads"),
        ({"surprise": 1}, "is no export that this version reads"),
        ({"format": "1"}, "is no export that this version reads"),
    ],
)
def test_a_foreign_record_is_refused(exported: Path, change: dict[str, object], says: str) -> None:
    """Also where its digests fit."""
    record = json.loads((exported / "trial.json").read_text())
    if change == {"spec": {}}:
        change = {"spec": {**record["spec"], "network": {"kind": "unheard_of"}}}
    (exported / "trial.json").write_text(json.dumps(record | change))
    reseal(exported)
    with pytest.raises(ExportError, match=says):
        read_record(exported)


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b'{"format": 1}', b"\xff\xfe"])
def test_a_record_that_is_none_is_refused(exported: Path, content: bytes) -> None:
    """Cut short, empty, of another kind, no text."""
    (exported / "trial.json").write_bytes(content)
    reseal(exported)
    with pytest.raises(ExportError, match="is no export"):
        read_export(exported)


def test_weights_that_are_no_safetensors_are_refused(exported: Path) -> None:
    """Nothing in them is executed: a pickle is not read."""
    torch.save({"a": torch.zeros(1)}, exported / "network.safetensors")
    reseal(exported)
    with pytest.raises(ExportError, match=r"network\.safetensors cannot be read"):
        read_export(exported)


def test_weights_of_another_network_are_refused(tmp_path: Path, exported: Path, toy_spec: TrialSpec) -> None:
    """Their shapes do not fit."""
    stored = read_export(exported)
    cut = {name: tensor[:1] for name, tensor in stored.weights.items()}
    with pytest.raises(CheckpointError, match="do not fit its network"):
        replace(stored, weights=cut).build(CPU)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "extra.txt"])
def test_digests_name_only_files_of_exports(exported: Path, name: str) -> None:
    """No path leads out of the folder."""
    with (exported / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(ExportError, match="names '"):
        read_export(exported)


def test_a_link_is_no_file_of_an_export(exported: Path, tmp_path: Path) -> None:
    """It could lead anywhere."""
    (exported / "README.md").rename(tmp_path / "elsewhere")
    (exported / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match=r"README\.md cannot be read"):
        read_export(exported)


def test_another_folder_is_left_alone(tmp_path: Path, result: TrialResult) -> None:
    """An export is replaced, somebody's files are not."""
    stored = StoredNetwork.of_attempt(tmp_path / "attempt")
    record = record_of(stored, result)
    write_export(tmp_path / "out", stored, record, card, with_onnx=False)
    write_export(tmp_path / "out", stored, replace(record, name="again"), card, with_onnx=False)
    assert read_record(tmp_path / "out").name == "again"

    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        write_export(tmp_path / "out", stored, record, card, with_onnx=False)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_the_onnx_file_computes_what_torch_does(tmp_path: Path, result: TrialResult) -> None:
    """On images that it was not compared on, in batches of any size, preprocessing included."""
    import onnxruntime

    stored = StoredNetwork.of_attempt(tmp_path / "attempt")
    difference = write_export(tmp_path / "out", stored, record_of(stored, result), card)

    session = onnxruntime.InferenceSession(tmp_path / "out" / "network.onnx", providers=["CPUExecutionProvider"])
    network = TrainedClassifier(read_export(tmp_path / "out"), CPU)
    assert difference is not None
    assert difference <= 1e-4
    for count in (1, 4):
        shown = images(count, seed=count)
        (computed,) = session.run(None, {"images": shown.float().numpy()})
        assert np.abs(computed - network(shown).detach().numpy()).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda spec: replace(spec, preprocess=PreprocessSpec(contrast="clahe")), "cannot be exported to ONNX"),
        (lambda spec: replace(spec, transformers=(ROI,)), "reads the boxes of the signs"),
        (lambda spec: replace(spec, training=replace(spec.training, precision="bfloat16")), "computes in bfloat16"),
    ],
)
def test_what_onnx_cannot_say_is_refused_before_anything_is_written(
    tmp_path: Path, toy_dataset: Any, toy_spec: TrialSpec, change: Callable[[TrialSpec], TrialSpec], says: str
) -> None:
    """The reason is named, and the flag that leaves the file out."""
    spec = change(toy_spec)
    result = train(spec, tmp_path / "attempt")
    stored = StoredNetwork.of_attempt(tmp_path / "attempt")

    with pytest.raises(ExportError, match=says) as caught:
        write_export(tmp_path / "deep" / "out", stored, record_of(stored, result), card)

    assert "--no-onnx" in caught.value.remedy
    assert not (tmp_path / "deep" / "out").exists()
    assert write_export(tmp_path / "deep" / "out", stored, record_of(stored, result), card, with_onnx=False) is None
    assert read_export(tmp_path / "deep" / "out").spec == spec


PRETRAINED = sorted((Path(__file__).parents[3] / "pretrained").iterdir())


@pytest.mark.parametrize("folder", PRETRAINED, ids=lambda folder: folder.name)
def test_the_networks_that_come_along_can_be_used(folder: Path) -> None:
    """Their digests hold, and they classify images of the data set that they name."""
    network = TrainedClassifier(read_export(folder), CPU)
    side = network.spec.dataset.image_size
    levels = torch.randint(0, 256, (4, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found = network.predict(levels)
    assert set(found.names) <= set(network.class_names)
    assert found.probabilities.shape == (4, len(network.class_names))


def test_the_networks_that_come_along_are_small() -> None:
    """A clone of the repository fetches them all."""
    assert PRETRAINED
    assert sum(path.stat().st_size for folder in PRETRAINED for path in folder.iterdir()) < 12e6
