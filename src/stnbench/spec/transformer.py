"""Specifications of spatial transformers: the transformation, its localisation network, and the place."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from stnbench.core.errors import require, require_sizes
from stnbench.spec.codec import PartSpec, Strict
from stnbench.spec.registry import Registry

CONTROL, RIGID, DISCRETE, READS_BOXES = "control", "rigid", "discrete", "reads_boxes"
CONTROL_POINTS, ZOOM = "control_points", "zoom"
"""Traits of families.

A control learns nothing and has no localisation network; a rigid one has a scale of 1; a discrete one chooses one of
finitely many maps; one that reads boxes takes its parameters from the annotated box of the image. The last two are keys
of the specification that only families with the trait of the same name use; a family from outside has the traits of the
keys that its ``Spec`` repeats.
"""

Padding = Literal["zeros", "border", "reflection"]
"""Values outside the image: zeros, the nearest border pixel, or a reflection."""

Sampler = Literal["bilinear", "bicubic", "nearest", "mipmap", "linearized"]
"""Interpolation between the pixels of an image; ``nn/sampling.py`` defines each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocnetSpec(PartSpec):
    """Base specification of localisation networks."""

    def __post_init__(self) -> None:
        self.settle()

    @property
    def shared_stages(self) -> int:
        """Return the number of the classifier's stages that the localisation network reuses."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvLocnetSpec(LocnetSpec):
    """Localisation network ``a-b-c`` of 2015.

    Max-pool 2, conv 5x5 to ``a`` channels, ReLU, max-pool 2, conv 5x5 to ``b``, ReLU, max-pool 2, linear to ``c``,
    ReLU, linear to the parameters of the transformation (zero weights, identity bias).
    """

    kind: Literal["conv"] = "conv"
    sizes: tuple[int, int, int] = (200, 300, 200)

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseLocnetSpec(LocnetSpec):
    """Fully connected localisation network: one hidden layer with ReLU per size (Jaderberg et al. 2015, ST-FCN)."""

    kind: Literal["dense"] = "dense"
    sizes: tuple[int, ...] = (32, 32)

    def __post_init__(self) -> None:
        self.settle()
        require_sizes("sizes", self.sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedLocnetSpec(LocnetSpec):
    """Localisation network of the classifier's next ``stages`` stages and one hidden layer with ReLU per size.

    STN-SLX of Finnveden et al. 2020 (arXiv 2004.11678): the image is transformed, and the stages are shared.
    """

    kind: Literal["shared"] = "shared"
    stages: int = 1
    sizes: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        self.settle()
        require(self.stages >= 1, "stages", self.stages, "at least 1")
        require_sizes("sizes", self.sizes)

    @property
    def shared_stages(self) -> int:
        """Return the number of the classifier's stages that the localisation network reuses."""
        return self.stages


LOCNETS: Final = Registry("locnet", LocnetSpec, section="locnet")
LOCNETS.declare_each(
    {
        ConvLocnetSpec: "stnbench.nn.localization:ConvLayers",
        DenseLocnetSpec: "stnbench.nn.localization:DenseLayers",
        SharedLocnetSpec: "stnbench.nn.localization:DenseLayers",
    }
)

AnyLocnet = Annotated[LocnetSpec, LOCNETS]
"""Specification of any localisation network, discriminated by ``kind``."""


Posterior = Literal["student_t"]
"""Family of the distribution of parameters that a localisation network emits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSpec(Strict):
    """Specification of a transformation and its sampling.

    ``control_points`` (per side) applies to families of splines, ``zoom`` (the share of a side that is read) to a
    constant zoom. Families with further keys extend this specification. Keys without an effect take their defaults, so
    that they make no other trial: these two for other families, ``identity_penalty`` for a control, and a guard that
    never acts.

    ``scale_min`` and ``scale_max`` guard the scale: sampling points are spread or contracted about their mean until
    the ratio of their spread to that of the output lies between them. ``identity_penalty`` times the mean squared
    distance of the sampling points from the identity's, in half sides of the image, is added to the training loss.

    ``pose_weight`` times the mean squared distance of the sampling points from those of the true pose, in half sides of
    the image, is added to the training loss, for a transformer at the image and a data set that knows poses: a control
    that knows where the object is, so that it fills the output.

    ``iterations`` applies the same localisation network repeatedly to its output; the transformations are composed, and
    the original image is sampled (Lin & Lucey 2017, IC-STN). ``branches`` is the number of parallel transformers, whose
    outputs are concatenated by channel (Jaderberg et al. 2015, MNIST addition). ``output_pooling`` is the side in
    pixels of the windows over which the output is averaged (Jaderberg et al. 2015, A.4). ``output_size`` is the side of
    the output in pixels, that of the input if it is None: a transformer that zooms in on the sign loses little by a
    smaller output, which makes all later layers cheaper.

    With a ``posterior``, the localisation network emits a Student's t distribution of every parameter (Schwobel et al.
    2022). Training draws one sample per image and step, seeded like dropout; scoring averages the class probabilities
    over ``posterior_samples`` samples, which are the same for every image and trial. ``posterior_weight`` times the
    divergence from the prior is added to the training loss.
    """

    family: str = "affine"
    sampler: Sampler = "bilinear"
    padding: Padding = "zeros"
    align_corners: bool = True
    control_points: int = 4
    zoom: float = 0.72
    scale_min: float | None = None
    scale_max: float | None = None
    identity_penalty: float = 0.0
    pose_weight: float = 0.0
    iterations: int = 1
    branches: int = 1
    output_pooling: int = 1
    output_size: int | None = None
    posterior: Posterior | None = None
    posterior_weight: float = 1e-4
    posterior_samples: int = 10

    def __post_init__(self) -> None:
        self.settle()
        require(2 <= self.control_points <= 16, "control_points", self.control_points, "from 2 to 16 a side")
        require(self.zoom > 0, "zoom", self.zoom, "above 0")
        for key, bound in (("scale_min", self.scale_min), ("scale_max", self.scale_max)):
            require(bound is None or bound > 0, key, bound, "above 0, or null for no guard")
        size = self.output_size
        require(size is None or 4 <= size <= 512, "output_size", size, "from 4 to 512 pixels, or null for the input's")
        low, high = self.scale_min or 0, self.scale_max
        require(high is None or low <= high, "scale_min", low, "at most scale_max")
        require(self.identity_penalty >= 0, "identity_penalty", self.identity_penalty, "at least 0")
        require(self.pose_weight >= 0, "pose_weight", self.pose_weight, "at least 0")
        for key, count in (
            ("iterations", self.iterations),
            ("branches", self.branches),
            ("output_pooling", self.output_pooling),
        ):
            require(1 <= count <= 16, key, count, "from 1 to 16")
            once = not self.is_control or key == "output_pooling"
            require(once or count == 1, key, count, f"1, since the control {self.family} does the same each time")
        require(self.posterior_weight >= 0, "posterior_weight", self.posterior_weight, "at least 0")
        require(1 <= self.posterior_samples <= 1000, "posterior_samples", self.posterior_samples, "from 1 to 1000")
        is_plain = not (self.is_control or TRANSFORMERS.has_trait(self.family, DISCRETE))
        require(self.posterior is None or is_plain, "posterior", self.posterior, f"null: {self.family} has none")
        self._forget_idle_keys()

    @property
    def is_control(self) -> bool:
        """Return whether the family learns nothing and has no localisation network."""
        return TRANSFORMERS.has_trait(self.family, CONTROL)

    @property
    def reads_boxes(self) -> bool:
        """Return whether the family takes its parameters from the annotated box of the image."""
        return TRANSFORMERS.has_trait(self.family, READS_BOXES)

    def _forget_idle_keys(self) -> None:
        """Reset the keys that have no effect for this family to their defaults."""
        usual: dict[str, object] = {}
        if self.family == "fixed_zoom":  # the guard of a constant zoom is another constant zoom
            usual["zoom"] = _clamped(self.zoom, self.scale_min, self.scale_max)
        is_rigid = TRANSFORMERS.has_trait(self.family, RIGID)
        keeps_scale = is_rigid and _clamped(1.0, self.scale_min, self.scale_max) == 1
        if self.family == "fixed_zoom" or keeps_scale:
            usual |= {"scale_min": None, "scale_max": None}
        if self.is_control:
            usual |= {"identity_penalty": 0.0, "pose_weight": 0.0}
        if self.posterior is None:
            fields = self.__dataclass_fields__
            usual |= {key: fields[key].default for key in ("posterior_weight", "posterior_samples")}
        for key in (CONTROL_POINTS, ZOOM):
            if not TRANSFORMERS.has_trait(self.family, key):
                usual[key] = self.__dataclass_fields__[key].default
        for key, value in usual.items():
            object.__setattr__(self, key, value)


TRANSFORMERS: Final = Registry("transformer", TransformerSpec, discriminator="family", section="transformer")
TRANSFORMERS.declare(
    TransformerSpec,
    {
        "affine": "stnbench.nn.transforms.registry:affine",
        "rotation": "stnbench.nn.transforms.registry:similarity",
        "scale": "stnbench.nn.transforms.registry:similarity",
        "translation": "stnbench.nn.transforms.registry:similarity",
        "rotation_scale": "stnbench.nn.transforms.registry:similarity",
        "rotation_translation": "stnbench.nn.transforms.registry:similarity",
        "scale_translation": "stnbench.nn.transforms.registry:similarity",
        "rotation_scale_translation": "stnbench.nn.transforms.registry:similarity",
        "rotation_vector": "stnbench.nn.transforms.registry:similarity",
        "rotation_vector_scale": "stnbench.nn.transforms.registry:similarity",
        "rotation_vector_translation": "stnbench.nn.transforms.registry:similarity",
        "rotation_vector_scale_translation": "stnbench.nn.transforms.registry:similarity",
        "attention": "stnbench.nn.transforms.registry:attention",
        "crop": "stnbench.nn.transforms.registry:crop",
        "shear": "stnbench.nn.transforms.registry:shear",
        "lie_affine": "stnbench.nn.transforms.registry:lie_affine",
        "projective": "stnbench.nn.transforms.registry:projective",
        "corners": "stnbench.nn.transforms.registry:corners",
        "tps": "stnbench.nn.transforms.registry:tps",
        "fixed_zoom": "stnbench.nn.transforms.registry:fixed_zoom",
        "roi": "stnbench.nn.transforms.registry:crop",  # its parameters come from the box: controls.box_parameters
    },
    traits={
        "tps": [CONTROL_POINTS],
        "fixed_zoom": [CONTROL, ZOOM],
        "roi": [CONTROL, READS_BOXES],
        "rotation": [RIGID],
        "translation": [RIGID],
        "rotation_translation": [RIGID],
        "rotation_vector": [RIGID],
        "rotation_vector_translation": [RIGID],
    },
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffeomorphicSpec(TransformerSpec):
    """Flow of a velocity field with ``control_points`` per side, integrated in ``steps`` steps."""

    family: str = "diffeomorphic"
    steps: int = 4

    def __post_init__(self) -> None:
        TransformerSpec.__post_init__(self)
        require(self.control_points >= 4, "control_points", self.control_points, "at least 4 a side for a cubic spline")
        require(1 <= self.steps <= 64, "steps", self.steps, "from 1 to 64")


@dataclass(frozen=True, kw_only=True, slots=True)
class SaliencySpec(TransformerSpec):
    """Saliency at ``saliency_points`` points per side, or at that number of columns and rows if ``separable``."""

    family: str = "saliency"
    saliency_points: int = 15
    separable: bool = False

    def __post_init__(self) -> None:
        TransformerSpec.__post_init__(self)
        points = self.saliency_points
        require(2 <= points <= 64, "saliency_points", points, "from 2 to 64 a side")


@dataclass(frozen=True, kw_only=True, slots=True)
class CanonicalRotationSpec(TransformerSpec):
    """Choice among ``rotations`` rotations, with ``prior_weight`` times the cross-entropy to the identity as a loss."""

    family: str = "canonical_rotation"
    rotations: int = 4
    prior_weight: float = 0.1

    def __post_init__(self) -> None:
        TransformerSpec.__post_init__(self)
        require(2 <= self.rotations <= 36, "rotations", self.rotations, "from 2 to 36")
        require(self.prior_weight >= 0, "prior_weight", self.prior_weight, "at least 0")


TRANSFORMERS.declare(
    DiffeomorphicSpec,
    {"diffeomorphic": "stnbench.nn.transforms.registry:diffeomorphic"},
    {"diffeomorphic": [CONTROL_POINTS]},
)
TRANSFORMERS.declare(SaliencySpec, {"saliency": "stnbench.nn.transforms.registry:saliency"}, {})
TRANSFORMERS.declare(
    CanonicalRotationSpec,
    {"canonical_rotation": "stnbench.nn.transforms.registry:canonical_rotation"},
    {"canonical_rotation": [RIGID, DISCRETE]},
)

AnyTransformer = Annotated[TransformerSpec, TRANSFORMERS]
"""Specification of any transformer, discriminated by ``family``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedTransformerSpec(Strict):
    """A spatial transformer (transformation and localisation network) before the ``place``-th convolution stage.

    Place 1 is the input image. ``locnet`` is None for controls.
    """

    place: int
    transformer: AnyTransformer = field(default_factory=TransformerSpec)
    locnet: AnyLocnet | None = field(default_factory=ConvLocnetSpec)

    def __post_init__(self) -> None:
        self.settle()
        require(self.place >= 1, "place", self.place, "places count from 1, the input image")
        weight = self.transformer.pose_weight
        require(self.place == 1 or weight == 0, "pose_weight", weight, "0 at later places: poses are those of images")
        remedy = "controls (fixed_zoom, roi) have none, and all other families need one"
        if not TRANSFORMERS.is_absent(self.transformer.family):
            require((self.locnet is None) == self.transformer.is_control, "locnet", self.locnet, remedy)


def _clamped(value: float, low: float | None, high: float | None) -> float:
    return max(low or 0.0, value if high is None else min(value, high))
