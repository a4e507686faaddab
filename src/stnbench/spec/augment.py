"""Augmentation: how training images are varied at random, differently in every epoch."""

from dataclasses import dataclass
from typing import Literal

from stnbench.spec.check import require
from stnbench.spec.codec import Strict


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentSpec(Strict):
    """The largest random variation of each kind; 0 leaves it out, and with all at 0 images stay as they are.

    Every number is drawn uniformly from minus to plus its key, for every image of every epoch anew. The kinds are
    applied in the order in which they stand here, all geometric ones in a single resampling; what comes from outside
    the image is its border continued, since black wedges would give the augmentation away. There are no flips: the
    mirror image of a sign is another sign or none.

    Geometry, as the content of the image moves:
        perspective: each of the four corners moves by up to this share of the side, along x and along y.
        scale: the content becomes 1 + this many times as large.
        aspect: its width over its height becomes 1 + this many times as large, its area stays.
        shear_deg: vertical lines lean by up to so many degrees.
        rotation_deg: it turns about the centre.
        translation: it moves by up to this share of the side, along x and along y.
    Colour:
        gamma: levels, as shares of the brightest, are raised to the power 2 to the this, which darkens or lights up
            shadows and leaves black and white.
        brightness: all levels are multiplied by 1 + this.
        contrast: the distance of all levels from the image's mean lightness is.
        saturation: the distance of every pixel from its own grey is; for RGB images only.
        hue_deg: colours turn about the grey axis, the luma stays; for RGB images only.
    Last, what hides a sign:
        blur: every pixel moves towards a gaussian mean of its neighbourhood by this share of the way (sigma 1.25
            pixels), and away from it, which sharpens, where the number is negative.
        erase: a rectangle with sides of up to this share of the image's is painted in the image's mean colour (random
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
        # From a quarter of the side on, the four corners may be no convex quadrilateral, and images fold over.
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
        """Whether images are resampled."""
        return self._any("perspective", "scale", "aspect", "shear_deg", "rotation_deg", "translation")

    @property
    def is_colour(self) -> bool:
        """Whether levels are changed."""
        return self._any("brightness", "contrast") or self.needs_rgb

    @property
    def needs_rgb(self) -> bool:
        """Whether anything is asked for that only images of three colours have."""
        return self._any("saturation", "hue_deg")

    @property
    def changes_anything(self) -> bool:
        """Whether images are not left as they are."""
        return self.is_geometric or self.is_colour or self._any("gamma", "blur", "erase")

    def _any(self, *keys: str) -> bool:
        return any(getattr(self, key) > 0 for key in keys)
