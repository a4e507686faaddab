"""Specifications of data augmentation in training and of views in scoring.

Augmentations are parts in a registry: that of stnbench is declared here with the place of its implementation, external
ones are registered with :func:`stnbench.register`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from stnbench.core.errors import require
from stnbench.spec.codec import Strict
from stnbench.spec.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationSpec(Strict):
    """Base specification of augmentations, which vary the training images anew in every epoch."""

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()

    @property
    def kind(self) -> str:
        """Return the name of the augmentation; each specification has a field of this name."""
        raise NotImplementedError

    @property
    def changes_anything(self) -> bool:
        """Return whether images can differ from what they are; a trial drops an augmentation that changes nothing."""
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSpec(AugmentationSpec):
    """Largest random variation of each kind; 0 disables it, and with all at 0 images are unchanged.

    Every number is drawn uniformly between minus and plus its key, anew for every image and epoch. The kinds are
    applied in the order in which they are listed here, all geometric ones in a single resampling. Points outside the
    image repeat its border, since black wedges would reveal the augmentation. There are no flips: the mirror image of a
    sign is another sign or none.

    Geometry, as the content of the image moves:
        perspective: each of the four corners moves by up to this share of the side, along x and along y.
        scale: the content is scaled by 1 + this.
        aspect: the ratio of width to height is multiplied by 1 + this at constant area.
        shear_deg: vertical lines are tilted by up to this number of degrees.
        rotation_deg: the content rotates about the centre by up to this number of degrees.
        translation: the content moves by up to this share of the side, along x and along y.
    Colour:
        gamma: levels, as shares of the brightest, are raised to the power 2 ** this, which darkens or brightens shadows
            and keeps black and white.
        brightness: all levels are multiplied by 1 + this.
        contrast: the distance of all levels from the image's mean lightness is multiplied by 1 + this.
        saturation: the distance of every pixel from its grey value is multiplied by 1 + this; for RGB images only.
        hue_deg: colours rotate about the grey axis at constant luma, in degrees; for RGB images only.
    Occlusion, applied last:
        blur: every pixel moves towards a gaussian mean of its neighbourhood by this share (sigma 1.25 pixels); a
            negative number moves it away, which sharpens.
        erase: a rectangle with sides of up to this share of the image's is filled with the image's mean colour (random
            erasing, Zhong et al. 2020; cutout, DeVries & Taylor 2017); its sides are drawn from 0 on.
    """

    kind: Literal["random"] = "random"
    perspective: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    shear_deg: float = 0.0
    rotation_deg: float = 0.0
    translation: float = 0.0
    gamma: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_deg: float = 0.0
    blur: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        # From a quarter of the side on, the four corners may form no convex quadrilateral, which folds the image.
        require(0 <= self.perspective < 0.25, "perspective", self.perspective, "at least 0 and below 0.25")
        require(0 <= self.translation <= 1, "translation", self.translation, "from 0 to 1, a share of the side")
        require(0 <= self.shear_deg <= 60, "shear_deg", self.shear_deg, "from 0 to 60 degrees")
        for key, factor in (("scale", self.scale), ("aspect", self.aspect)):
            require(0 <= factor < 1, key, factor, "at least 0 and below 1, so that nothing shrinks to a point")
        for key, angle in (("rotation_deg", self.rotation_deg), ("hue_deg", self.hue_deg)):
            require(0 <= angle <= 180, key, angle, "from 0 to 180 degrees")
        require(0 <= self.gamma <= 4, "gamma", self.gamma, "from 0 to 4 octaves: an exponent of 16 is all black")
        colour = (("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation))
        for key, factor in colour:
            require(0 <= factor <= 1, key, factor, "from 0 to 1, so that no factor is negative")
        for key, share in (("blur", self.blur), ("erase", self.erase)):
            require(0 <= share <= 1, key, share, "from 0 to 1")

    @property
    def is_geometric(self) -> bool:
        """Return whether images are resampled."""
        return self._any("perspective", "scale", "aspect", "shear_deg", "rotation_deg", "translation")

    @property
    def is_colour(self) -> bool:
        """Return whether colours or levels are changed, apart from gamma."""
        return self._any("brightness", "contrast") or self.needs_rgb

    @property
    def needs_rgb(self) -> bool:
        """Return whether a variation is enabled that needs RGB images."""
        return self._any("saturation", "hue_deg")

    @property
    def changes_anything(self) -> bool:
        """Return whether any variation is enabled."""
        return self.is_geometric or self.is_colour or self._any("gamma", "blur", "erase")

    def _any(self, *keys: str) -> bool:
        return any(getattr(self, key) > 0 for key in keys)


AUGMENTATIONS: Final = Registry("augmentation", AugmentationSpec, section="augment")
AUGMENTATIONS.declare_each({AugmentSpec: "stnbench.data.augmentation:RandomAugmentation"})

AnyAugmentation = Annotated[AugmentationSpec, AUGMENTATIONS]
"""Specification of any augmentation, discriminated by ``kind``."""


# Views: in scoring, a network may see every image several times, each time moved slightly.


@dataclass(frozen=True, kw_only=True, slots=True)
class TtaSpec(Strict):
    """Views of an image over which class probabilities are averaged in scoring; they are never used in training.

    Every combination of a shift, a zoom and a rotation of the content is a view. The shifts are -``shift``, 0 and
    ``shift``, as shares of the side, along x and along y (0: no shift, one view); ``zooms`` are the factors of scale,
    ``rotations_deg`` the clockwise rotations about the centre in degrees. The order of views has no effect, so zooms
    and rotations are kept sorted.
    """

    kind: Literal["grid"] = "grid"
    shift: float = 0.0
    zooms: tuple[float, ...] = (1.0,)
    rotations_deg: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Check the values."""
        self.settle()
        require(0 <= self.shift <= 0.5, "shift", self.shift, "from 0 to 0.5, a share of the side")
        fits = all(0.25 <= zoom <= 4 for zoom in self.zooms)
        require(bool(self.zooms) and fits, "zooms", list(self.zooms), "at least one, from 0.25 to 4")
        fits = all(abs(angle) <= 180 for angle in self.rotations_deg)
        require(bool(self.rotations_deg) and fits, "rotations_deg", list(self.rotations_deg), "at least one, to 180")
        require(self.count <= 200, "tta", self.count, "at most 200 of them")
        object.__setattr__(self, "zooms", _once_if_alike(sorted(self.zooms)))
        half_turns = (180.0 if angle == -180 else angle for angle in self.rotations_deg)
        object.__setattr__(self, "rotations_deg", _once_if_alike(sorted(half_turns)))

    @property
    def count(self) -> int:
        """Return the number of views."""
        return (9 if self.shift > 0 else 1) * len(self.zooms) * len(self.rotations_deg)

    @property
    def moves_anything(self) -> bool:
        """Return whether any view differs from the unchanged image."""
        return self.shift > 0 or self.zooms != (1.0,) or self.rotations_deg != (0.0,)


def _once_if_alike(values: Sequence[float]) -> tuple[float, ...]:
    """Return the values, or a single one if all are equal, since their mean is the same."""
    return tuple(values[:1] if len(set(values)) == 1 else values)
