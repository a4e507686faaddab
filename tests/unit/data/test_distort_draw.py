"""What is drawn keeps to the ranges that the specification states."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from stnbench.core.errors import SpecError
from stnbench.core.identity import Json
from stnbench.data.distort import CORNERS, draw_warp, regular_lattice
from stnbench.spec.codec import from_plain, to_identity
from stnbench.spec.data import DigitsSpec, DistortionSpec, GtsrbSpec, MnistSpec, SignsSpec

pytestmark = pytest.mark.slow

CHOICES = Path(__file__).parents[3] / "conf" / "distortion"
DRAWS = 400


def choice(name: str) -> DistortionSpec:
    """A file of the group ``distortion``."""
    plain = yaml.safe_load((CHOICES / f"{name}.yaml").read_text(encoding="utf-8"))
    return from_plain(DistortionSpec, plain, where=name)


def homographies(spec: DistortionSpec) -> NDArray[np.float64]:
    """Many draws, (n, 3, 3)."""
    return np.array([draw_warp(spec, np.random.default_rng(seed)).homography for seed in range(DRAWS)])


def lattices(spec: DistortionSpec) -> NDArray[np.float64]:
    """Many draws, (n, 16, 2)."""
    return np.array([draw_warp(spec, np.random.default_rng(seed)).lattice for seed in range(DRAWS)])


def test_nothing_asked_for_is_nothing_done() -> None:
    """The default leaves every point where it is."""
    np.testing.assert_allclose(lattices(DistortionSpec()), np.broadcast_to(regular_lattice(), (DRAWS, 16, 2)))


@pytest.mark.parametrize(
    ("name", "rotation_deg", "scales", "canvas", "moves"),
    [
        ("R", 90, (1.0, 1.0), 1.0, False),
        ("RTS", 45, (0.7, 1.2), 1.5, True),
        ("T", 0, (1.0, 1.0), 60 / 28, True),
        ("TC", 0, (1.0, 1.0), 60 / 28, True),
    ],
)
def test_similarities_fill_their_ranges(
    name: str, rotation_deg: float, scales: tuple[float, float], canvas: float, *, moves: bool
) -> None:
    """Angles and scales stay in their ranges and reach 95 % of them; the unturned square stays in the frame."""
    found = homographies(choice(name))
    angles = np.degrees(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    sizes = np.hypot(found[:, 0, 0], found[:, 1, 0]) * canvas
    assert np.abs(angles).max() <= rotation_deg + 1e-9
    assert np.ptp(angles) >= 0.95 * 2 * rotation_deg
    assert sizes.min() >= scales[0] - 1e-9
    assert sizes.max() <= scales[1] + 1e-9
    assert np.ptp(sizes) >= 0.95 * (scales[1] - scales[0])
    reach = np.abs(found[:, :2, 2]) + sizes[:, None] / canvas
    assert reach.max() <= 1 + 1e-9
    assert (np.ptp(found[:, :2, 2], axis=0) > 0.5).all() == moves
    np.testing.assert_allclose(found[:, 2], np.broadcast_to([0, 0, 1], (DRAWS, 3)), atol=1e-12)


@pytest.mark.parametrize(("noise", "is_corner"), [(5 / 28, True), (1.5 / 28, False)])
def test_noise_has_the_strength_of_the_paper(noise: float, *, is_corner: bool) -> None:
    """5 pixels of 28 at the corners, 1.5 at the control points, to 6 %: redrawing folds takes a little away."""
    spec = DistortionSpec(corner_noise=noise) if is_corner else DistortionSpec(point_noise=noise)
    rows = list(CORNERS) if is_corner else list(range(16))
    moved = (lattices(spec) - regular_lattice())[:, rows]
    assert moved.std() / 2 == pytest.approx(noise, rel=0.06)
    assert np.abs(moved.mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("name", ["P", "E", "perturbed"])
def test_nothing_folds(name: str) -> None:
    """Every cell of the lattice keeps its four corners convex and in order, so that the warp is one to one."""
    points = lattices(choice(name)).reshape(DRAWS, 4, 4, 2)
    cells = np.stack([points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]], axis=-2)
    ahead, back = np.roll(cells, -1, axis=-2) - cells, np.roll(cells, 1, axis=-2) - cells
    assert (ahead[..., 0] * back[..., 1] - ahead[..., 1] * back[..., 0]).min() > 0


def test_the_centre_stays_in_the_frame() -> None:
    """Even the strongest noise leaves the middle of the thing in the image."""
    found = homographies(DistortionSpec(scale_min=0.5, placement="random", corner_noise=0.3))
    assert np.abs(found[:, :2, 2]).max() < 1


def test_p_and_e_scale_first() -> None:
    """The square's side before the noise lies between 0.75 and 1; noise changes its mean area by little."""
    areas = []
    for found in lattices(choice("P")):
        x, y = found[list(CORNERS)].T
        areas.append(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 8)
    assert np.mean(areas) == pytest.approx(np.mean(np.linspace(0.75, 1, 99) ** 2), rel=0.05)


def test_distortions_of_one_seed_share_what_they_have_in_common() -> None:
    """RTS turns as R does, half as far, from the same generator."""
    turned, placed = homographies(choice("R"))[:9], homographies(choice("RTS"))[:9]
    angles = [np.arctan2(found[:, 1, 0], found[:, 0, 0]) for found in (turned, placed)]
    np.testing.assert_allclose(angles[0], 2 * angles[1], atol=1e-9)


@pytest.mark.parametrize("path", sorted(CHOICES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_choice_says_every_field(path: Path) -> None:
    """A reader sees all there is to vary; ``none`` is none."""
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "none":
        assert plain == {"kind": "none"}
    else:
        assert list(plain) == list(DistortionSpec.__dataclass_fields__)
        assert from_plain(DistortionSpec, plain, where=path.name) != DistortionSpec()


@pytest.mark.parametrize(
    "values",
    [
        {"rotation_deg": 181},
        {"rotation_deg": -1},
        {"scale_min": 0},
        {"scale_max": 0.5},
        {"canvas": 0.9},
        {"corner_noise": -0.1},
        {"point_noise": 0.2},
        {"clutter": -1},
        {"placement": "anywhere"},
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Json]) -> None:
    """The message says which key."""
    with pytest.raises(SpecError, match=next(iter(values))):
        from_plain(DistortionSpec, values, where="a test")


@pytest.mark.parametrize("kind", [SignsSpec, GtsrbSpec])
def test_clutter_is_for_digits(kind: type) -> None:
    """Photographs refuse it, with the key."""
    with pytest.raises(SpecError, match=r"distortion\.clutter"):
        kind(distortion=DistortionSpec(clutter=6))


@pytest.mark.parametrize("kind", [SignsSpec, GtsrbSpec, DigitsSpec, MnistSpec])
def test_no_distortion_is_not_in_the_identity(kind: type) -> None:
    """Trials from before there were distortions keep their identity, and a distortion makes another trial."""
    assert "distortion" not in to_identity(kind())
    assert to_identity(kind(distortion=DistortionSpec(rotation_deg=9)))["distortion"] == {"rotation_deg": 9}
