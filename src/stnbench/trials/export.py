"""Trained networks, loaded from a trial or an export, and written as an export."""

import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

import stnbench
from stnbench.core.errors import CheckpointError, ExportError, ShapeError, SpecError
from stnbench.core.files import AttemptLayout, file_sha256, sync_folder, write_atomic
from stnbench.data.build import dataset_info
from stnbench.data.preprocessing import GlobalStatistics
from stnbench.models.scored_network import Model, build_model
from stnbench.nn.onnx import export_onnx
from stnbench.spec.codec import Strict, from_stored, to_json
from stnbench.spec.result import Cost, Environment, SplitScore
from stnbench.spec.trial import TrialSpec
from stnbench.training.evaluate import over_views
from stnbench.training.loop import read_checkpoint
from stnbench.trials.files import load_spec

# Trained networks, read from the folder of an attempt for use in any program.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredNetwork:
    """A trained network in memory, independent of where it was stored.

    Attributes:
        spec: the trial.
        statistics: statistics of the training images, which preprocessing needs.
        class_names: one readable name per class, in label order.
        weights: the weights that are scored, by name: averages if the trial has any.
    """

    spec: TrialSpec
    statistics: GlobalStatistics
    class_names: Sequence[str]
    weights: Mapping[str, Tensor]

    @classmethod
    def of_attempt(cls, folder: Path) -> "StoredNetwork":
        """Read the network in the folder of an attempt.

        Raises:
            FolderError or CheckpointError: if there is none.
        """
        spec = load_spec(folder)
        checkpoint = read_checkpoint(AttemptLayout(folder).checkpoint, trial_id=spec.trained_as.trial_id)
        names = dataset_info(spec.dataset).class_names
        if len(names) != checkpoint.classes:
            names = tuple(map(str, range(checkpoint.classes)))
        return cls(
            spec=spec,
            statistics=checkpoint.statistics,
            class_names=tuple(names),
            weights={**checkpoint.network, **checkpoint.average},
        )

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    def rounded_to_half(self) -> "StoredNetwork":
        """Return the network with its weights rounded to float16, as float32.

        Raises:
            ExportError: if a weight is beyond the range of float16.
        """
        rounded = {
            name: tensor.to(torch.float16).to(tensor.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in self.weights.items()
        }
        for name, tensor in rounded.items():
            if not torch.isfinite(tensor).all():
                problem = f"{name} of the trial {self.spec.trial_id} is beyond the range of half precision"
                raise ExportError(problem, remedy="export it without --half")
        return replace(self, weights=rounded)

    def build(self, device: torch.device) -> Model:
        """Build the model with its trained weights, ready to score.

        Raises:
            CheckpointError: if the weights do not fit.
            SpecError: if a part from outside is not here, or is another by now.
        """
        model = build_model(self.spec, self.statistics, classes=self.classes, device=device)
        try:
            model.network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            said = str(error).splitlines()[-1].strip()
            problem = f"the weights of the trial {self.spec.trial_id} do not fit its network ({said})"
            raise CheckpointError(problem, remedy="another version of stnbench has made them") from error
        model.network.eval()
        return model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """Predictions of a network for a batch of images.

    Attributes:
        labels: int64 (batch,), the most probable class of each image.
        names: names of these classes.
        probabilities: float32 (batch, classes).
    """

    labels: Tensor
    names: tuple[str, ...]
    probabilities: Tensor


class TrainedClassifier(nn.Module):
    """A trained network with its preprocessing, from images as in a file to logits, exactly as trials are scored.

    It is in evaluation mode. If the trial averages over shifted views of an image (test-time augmentation), ``forward``
    does as well.

    Args:
        stored: the trained network.
        device: device for the computation; ``to`` moves the module.

    Attributes:
        spec: the trial.
        class_names: one readable name per class, in label order.
        image_shape: channels, height and width of the input images.
    """

    def __init__(self, stored: StoredNetwork, device: torch.device) -> None:
        super().__init__()
        self._model = stored.build(device)
        self.network = self._model.network
        self.preprocess = self._model.preprocess
        self.spec = stored.spec
        self.statistics = stored.statistics
        self.class_names = tuple(stored.class_names)
        self.image_shape = (
            stored.spec.dataset.channels,
            stored.spec.dataset.image_size,
            stored.spec.dataset.image_size,
        )
        self.eval()

    @property
    def reads_boxes(self) -> bool:
        """Return whether a transformer reads the boxes of the signs (the control ``roi``)."""
        return any(placed.transformer.reads_boxes for placed in self.spec.transformers)

    def forward(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Compute the logits of images.

        Args:
            images: (batch, channels, height, width) of ``image_shape``, RGB if there are three channels; uint8, or
                floating point numbers in [0, 255] (not in [0, 1]).
            boxes: (batch, 4), x1, y1, x2, y2 of the signs, -1 and 1 at the outer edges of the image; required if
                ``reads_boxes``, and ignored otherwise.

        Returns:
            Logits (batch, classes), float32.

        Raises:
            ShapeError: if the images have another shape, or boxes are missing.
        """
        logits = self.look_once(images, boxes)
        if self._model.tta is None:
            return logits
        if boxes is None:
            boxes = images.new_zeros((images.shape[0], 4), dtype=torch.float32)
        levels = images if images.dtype == torch.uint8 else images.to(torch.float32)
        return over_views(self._model, levels, boxes, logits)

    def look_once(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Compute the logits (batch, classes) in one pass, without views; arguments as of ``forward``."""
        if tuple(images.shape[1:]) != self.image_shape:
            channels, height, width = self.image_shape
            raise ShapeError("the images", images.shape, f"(batch, {channels}, {height}, {width})")
        prepared: Tensor = self.preprocess(images if images.dtype == torch.uint8 else images.to(torch.float32))
        return self._model.explain_prepared(prepared, boxes).logits

    @torch.inference_mode()
    def predict(self, images: Tensor, boxes: Tensor | None = None) -> Prediction:
        """Classify images; arguments as of ``forward``.

        Returns:
            Labels, names and probabilities of the images.
        """
        probabilities = self(images, boxes).softmax(dim=1)
        labels = probabilities.argmax(dim=1)
        names = tuple(self.class_names[label] for label in labels.tolist())
        return Prediction(labels=labels, names=names, probabilities=probabilities)


def require_same_classes(networks: Sequence[StoredNetwork]) -> None:
    """Check that networks have the same classes, so that their probabilities can be averaged.

    Raises:
        SpecError: naming the first that does not.
    """
    first, *others = networks
    for other in others:
        if tuple(other.class_names) != tuple(first.class_names):
            problem = f"the trials {first.spec.trial_id} and {other.spec.trial_id} have other classes"
            raise SpecError(problem, remedy="an ensemble is of networks for the same classes")


# Exports: writing a trained network to a folder for distribution, and reading it back, bit for bit.
#
# A folder holds the weights (safetensors), the network for other programs (ONNX), its record (``trial.json``), a model
# card (``README.md``) and the SHA-256 of each (``SHA256SUMS``, which ``sha256sum -c`` checks as well). Nothing in it is
# ever executed, and nothing is read before its digest was compared.


WEIGHTS, ONNX, RECORD, CARD, SUMS = "network.safetensors", "network.onnx", "trial.json", "README.md", "SHA256SUMS"

_FORMAT: Final = 1
"""Version of the format, increased when the files of an export change."""

_NEEDED: Final = (WEIGHTS, RECORD, CARD)
_KNOWN: Final = frozenset({*_NEEDED, ONNX})
_SUMS_BYTES_MAX: Final = 4096
_INSTALL: Final = "pip install 'stnbench[export]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfCheck(Strict):
    """Comparison of a network with itself after its weights were rounded to float16.

    Attributes:
        images: the number of images of the training half that both classified.
        changed: the number of those that they classify differently, all of them wrongly.
    """

    images: int
    changed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRecord(Strict):
    """Description of an export.

    Attributes:
        format: version of the format of the folder.
        stnbench: the version of stnbench that wrote it.
        trial_id: the identity of the trial.
        name: readable name: sweep, configuration and seed.
        spec: the trial.
        class_names: one readable name per class, in label order.
        statistics: statistics of the training images.
        validation: score on the held-out images, without predictions; None if it was trained on all images.
        test: score on the test half, without predictions; None if there was none.
        cost: cost of the network.
        environment: environment of the training, including the digest of the data.
        train_duration_s: duration of the training in seconds.
        half: the check of weights that are stored in half precision; None where they are stored as they were trained.
        note: remarks of the exporter, such as an estimate from a cross-validation; may be empty.
    """

    format: int
    stnbench: str
    trial_id: str
    name: str
    spec: TrialSpec
    class_names: tuple[str, ...]
    statistics: GlobalStatistics
    validation: SplitScore | None
    test: SplitScore | None
    cost: Cost
    environment: Environment
    train_duration_s: float
    half: HalfCheck | None = None
    note: str = ""


def write_export(
    folder: Path,
    stored: StoredNetwork,
    record: ExportRecord,
    card: Callable[[Mapping[str, int], float | None], str],
    *,
    with_onnx: bool = True,
) -> float | None:
    """Write an export atomically.

    Args:
        folder: the folder to write; an existing export is replaced.
        stored: the network; with ``record.half``, its weights are those of ``rounded_to_half``.
        record: description of the network.
        card: returns the text of the card, from the sizes of the files in bytes and the difference of the ONNX file.
        with_onnx: whether to write an ONNX file, after comparing it with torch.

    Returns:
        The largest difference between torch and the ONNX file; None without one.

    Raises:
        ExportError: if the network has no counterpart in ONNX or differs there, if a library is missing, or if the
            folder holds anything else.
    """
    _require_free(folder)
    if importlib.util.find_spec("safetensors") is None:
        raise ExportError("an export needs safetensors", remedy=_INSTALL)
    from safetensors.torch import save

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "export"
        made.mkdir()
        difference = _write_onnx(stored, made / ONNX) if with_onnx else None
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in stored.weights.items()}
        if record.half is not None:  # they are rounded already, so that the files hold one network
            weights = {name: t.half() if t.is_floating_point() else t for name, t in weights.items()}
        write_atomic(made / WEIGHTS, save(weights, metadata={"trial_id": record.trial_id}))
        write_atomic(made / RECORD, to_json(record).encode())
        sizes = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        write_atomic(made / CARD, card(sizes, difference).encode())
        sums = "".join(f"{file_sha256(path)}  {path.name}\n" for path in sorted(made.iterdir()))
        write_atomic(made / SUMS, sums.encode())
        _put_in_place(made, folder)
    return difference


def new_record(stored: StoredNetwork, **facts: object) -> ExportRecord:
    """Return the record of a network, with this version and format; ``facts`` are the other fields."""
    return ExportRecord(
        format=_FORMAT,
        stnbench=stnbench.__version__,
        trial_id=stored.spec.trial_id,
        spec=stored.spec,
        class_names=tuple(stored.class_names),
        statistics=stored.statistics,
        **facts,  # type: ignore[arg-type]
    )


def is_export(folder: Path) -> bool:
    """Check whether a folder has a list of digests like an export; its contents are not checked."""
    return folder.is_dir() and (folder / SUMS).is_file()


def read_record(folder: Path) -> ExportRecord:
    """Read the record of an export, after comparing the digests of all its files.

    Raises:
        ExportError: if the folder is no export, or was damaged.
    """
    _check_sums(folder)
    path = folder / RECORD
    try:
        record = from_stored(ExportRecord, path.read_bytes(), where=str(path))
    except (SpecError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = error.problem if isinstance(error, SpecError) else str(error)
        raise ExportError(f"{folder} is no export that this version reads ({said})", remedy=_AGAIN) from error
    if record.format != _FORMAT:
        raise ExportError(
            f"{folder} is an export of format {record.format}",
            remedy=f"this version reads format {_FORMAT}; stnbench {record.stnbench} wrote it",
        )
    return record


def read_export(folder: Path) -> StoredNetwork:
    """Read the network of an export.

    Raises:
        ExportError: if the folder is no export, was damaged, or holds other weights than it says.
    """
    record = read_record(folder)
    if importlib.util.find_spec("safetensors") is None:
        raise ExportError("an export is read with safetensors", remedy=_INSTALL)
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights: dict[str, Tensor] = load((folder / WEIGHTS).read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder / WEIGHTS} cannot be read ({error})", remedy=_AGAIN) from error
    weights = {name: t.float() if t.dtype == torch.float16 else t for name, t in weights.items()}
    return StoredNetwork(
        spec=record.spec, statistics=record.statistics, class_names=record.class_names, weights=weights
    )


_AGAIN: Final = "export the trial again, or fetch the folder again"


class _AtOnce(nn.Module):
    """The function of the ONNX file: float32 images in [0, 255] to logits, each image evaluated once."""

    def __init__(self, trained: TrainedClassifier) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of images."""
        return self.trained.look_once(images)


def _write_onnx(stored: StoredNetwork, path: Path) -> float:
    spec = stored.spec
    without = "add --no-onnx to export the weights alone"
    if spec.training.precision == "bfloat16":
        raise ExportError(
            f"the trial {spec.trial_id} computes in bfloat16, which an ONNX file would not", remedy=without
        )
    trained = TrainedClassifier(stored, torch.device("cpu"))
    if trained.reads_boxes:
        raise ExportError(
            f"the trial {spec.trial_id} reads the boxes of the signs (roi), which an ONNX file of images has not",
            remedy=without,
        )
    try:
        return export_onnx(_AtOnce(trained), _examples(trained.image_shape), path)
    except ExportError as error:
        raise ExportError(error.problem.replace("_AtOnce", f"the trial {spec.trial_id}"), remedy=without) from error


def _examples(shape: tuple[int, int, int]) -> Tensor:
    """Return test images (5, channels, height, width) in [0, 255]: flat, a gradient, blots, an edge, and noise."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    blots = torch.rand(1, 1, 5, 5, generator=generator)
    blots = nn.functional.interpolate(blots, (height, width), mode="bilinear", align_corners=True)[0, 0]
    noise = torch.rand(height, width, generator=generator)
    plain = torch.stack([torch.full_like(x, 0.5), (x + y) / 2, blots, (x > 0.5).float(), noise])
    tints = torch.linspace(0.7, 1.0, channels)[:, None, None]
    return (255 * plain[:, None] * tints).round()


def _require_free(folder: Path) -> None:
    """Check that nothing but an export would be replaced."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExportError(f"{folder} is there already, and no folder", remedy="choose another place with --out")
    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - {*_KNOWN, SUMS})
        if others:
            problem = f"the folder {folder} holds {', '.join(others[:3])}"
            raise ExportError(problem, remedy="choose a new or an empty one with --out")


def _put_in_place(made: Path, folder: Path) -> None:
    """Move the new folder into place; an older export is removed only after that."""
    sync_folder(made)
    old = made.with_name("old")
    if folder.exists():
        folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(folder.parent)


def _check_sums(folder: Path) -> None:
    """Compare every file with its digest.

    Raises:
        ExportError: for the first that differs, and for a folder that is no export.
    """
    path = folder / SUMS
    try:
        if path.stat().st_size > _SUMS_BYTES_MAX:
            raise ExportError(f"{path} is no list of digests", remedy=_AGAIN)
        lines = path.read_text("ascii").splitlines()
    except FileNotFoundError as error:
        problem = f"{folder} is no export: it has no {SUMS}"
        raise ExportError(problem, remedy="name a folder that `stnbench export` wrote") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read ({error})", remedy=_AGAIN) from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    strange = sorted(sums.keys() - _KNOWN)  # never a path: only files of an export are opened
    missing = [name for name in _NEEDED if name not in sums]
    if strange or missing:
        said = f"names {strange[0]!r:.60}" if strange else f"does not name {missing[0]}"
        raise ExportError(f"{path} {said}, so {folder} is no export", remedy=_AGAIN)
    for name, expected in sums.items():
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            problem = f"{folder / name} cannot be read ({error.strerror or error})"
            raise ExportError(problem, remedy=_AGAIN) from error
        if found != expected:
            raise ExportError(f"{folder / name} is not as it was written: its SHA-256 differs", remedy=_AGAIN)
