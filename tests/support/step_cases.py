"""Trials that together use every family, sampler, preprocessing and part of a step, and runs of them on noise."""

import dataclasses
from typing import Any, get_args

import torch

from stnbench.data.preprocessing import GlobalStatistics, Preprocess
from stnbench.data.resident import DeviceImages
from stnbench.models.classifiers import build_network
from stnbench.models.scored_network import Model, choose_kernels
from stnbench.spec.data import Contrast, PreprocessSpec, SignsSpec
from stnbench.spec.network import CnnSpec, IdsiaSpec, LecunSpec, ModernSpec, NetworkSpec, PoojahiraSpec
from stnbench.spec.optimizer import (
    AdamSpec,
    AdamWSpec,
    AugmentSpec,
    CosineScheduleSpec,
    MuonSpec,
    OneCycleScheduleSpec,
    RmspropSpec,
    SgdSpec,
    StepScheduleSpec,
)
from stnbench.spec.transformer import (
    CONTROL,
    TRANSFORMERS,
    ConvLocnetSpec,
    DenseLocnetSpec,
    LocnetSpec,
    PlacedTransformerSpec,
    Sampler,
    SharedLocnetSpec,
)
from stnbench.spec.trial import ComputeOptions, TrainingSpec, TrialSpec
from stnbench.testing.transformers import specification
from stnbench.training.optim import WeightAverage, build_optimizer
from stnbench.training.step import TrainingRun

SIDE, CLASSES, BATCH = 24, 5, 6

VARIED = AugmentSpec(
    rotation_deg=15,
    translation=0.1,
    scale=0.1,
    shear_deg=5,
    perspective=0.05,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue_deg=5,
    gamma=0.5,
    blur=0.5,
    erase=0.3,
)

_OF_TRAINING = tuple(field.name for field in dataclasses.fields(TrainingSpec))


def placed(family: str = "affine", *, place: int = 1, locnet: LocnetSpec | None = None, **keys: Any) -> Any:
    """A transformer at a place, its localisation network small."""
    if TRANSFORMERS.has_trait(family, CONTROL):
        return PlacedTransformerSpec(place=place, locnet=None, transformer=specification(family, **keys))
    locnet = locnet or ConvLocnetSpec(sizes=(3, 4, 5))
    return PlacedTransformerSpec(place=place, locnet=locnet, transformer=specification(family, **keys))


def trial(*transformers: PlacedTransformerSpec, network: NetworkSpec | None = None, **keys: Any) -> TrialSpec:
    """A trial with these transformers; keys of its training are told from its own."""
    training = {"epochs": 2, "batch_size": BATCH} | {key: keys.pop(key) for key in _OF_TRAINING if key in keys}
    return TrialSpec(
        dataset=SignsSpec(image_size=SIDE),
        network=network or LecunSpec(sizes=(4, 5, 6)),
        transformers=transformers,
        training=TrainingSpec(**training),
        seed=3,
        **keys,
    )


def family_cases() -> dict[str, TrialSpec]:
    """One trial a family of transformations."""
    return {family: trial(placed(family)) for family in TRANSFORMERS.names()}


def other_cases() -> dict[str, TrialSpec]:
    """Samplers, preprocessing, and what else a step may do."""
    contrasts = {name: trial(placed(), preprocess=PreprocessSpec(contrast=name)) for name in get_args(Contrast)}
    small = IdsiaSpec(sizes=(4, 5, 6, 7))
    momentum = SgdSpec(momentum=0.9, nesterov=True, learning_rate=0.05, weight_decay=5e-4)
    falling = StepScheduleSpec(every_epochs=1)
    dampened = SgdSpec(momentum=0.9, dampening=0.9, learning_rate=0.05)
    return {
        **{f"sampler {name}": trial(placed(sampler=name)) for name in get_args(Sampler)},
        **{f"contrast {name}": spec for name, spec in contrasts.items()},
        "no transformer": trial(),
        "global normalisation": trial(placed(), preprocess=PreprocessSpec(contrastive_norm=False)),
        "edges": trial(placed(padding="border", align_corners=False)),
        "three places": trial(*(placed(place=p, locnet=DenseLocnetSpec(sizes=(4,))) for p in (1, 2, 3)), network=small),
        "guard and penalty": trial(placed(scale_max=1.5, identity_penalty=0.1)),
        "iterations": trial(placed(iterations=2)),
        "branches": trial(placed(branches=2)),
        "output size": trial(placed(output_size=16), network=ModernSpec(sizes=(4, 5, 6, 7))),
        "shared stages": trial(placed(locnet=SharedLocnetSpec(sizes=(4,), stages=1))),
        "dropout": trial(placed(), network=PoojahiraSpec(sizes=(4, 5, 6, 7))),
        "average": trial(placed(), weight_average=0.9, label_smoothing=0.1),
        "momentum": trial(placed(), optimizer=momentum, schedule=OneCycleScheduleSpec()),
        "adam": trial(placed(), optimizer=AdamSpec(weight_decay=1e-3), schedule=CosineScheduleSpec(warmup_epochs=0.5)),
        "adamw": trial(placed(), optimizer=AdamWSpec(amsgrad=True), gradient_clipping=0.5),
        "rmsprop": trial(placed(), optimizer=RmspropSpec(momentum=0.5, centered=True), schedule=falling),
        "muon": trial(placed(), optimizer=MuonSpec(locnet_learning_rate_factor=0.5)),
        "dampening": trial(placed(), optimizer=dampened),
        "augmented": trial(placed(), augment=VARIED),
        "bfloat16": trial(placed(), precision="bfloat16"),
        "tf32": trial(placed(), precision="tf32"),
        "cnn": trial(placed(), network=CnnSpec()),
    }


def make_run(
    spec: TrialSpec,
    device: torch.device,
    *,
    images: int = 40,
    micro_batches: int = 1,
    compute: ComputeOptions | None = None,
    fused: bool = False,
) -> TrainingRun:
    """A run as ``run_trial`` makes it, on noise that is the same on every device, built where the device is.

    ``fused`` makes the optimiser read its learning rates from tensors, as on a GPU.
    """
    with torch.device(device):
        network = build_network(spec, classes=CLASSES, seed=spec.seed)
        preprocess = Preprocess(spec.preprocess, GlobalStatistics(mean=0.45, std=0.25), image_size=SIDE)
    choose_kernels(network, preprocess, compute or ComputeOptions())
    model = Model(
        network=network,
        preprocess=preprocess,
        tta=spec.tta,
        precision=spec.training.precision,
        compute=compute or ComputeOptions(),
    )
    optimizer = build_optimizer(
        spec.optimizer,
        classifier=network.classifier_parameters(),
        localization=network.localization_parameters(),
        outputs=network.output_parameters(),
    )
    for group in optimizer.param_groups:
        if fused and "fused" in group:
            group["fused"] = True
    drawn = torch.Generator().manual_seed(7)
    levels = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=drawn)
    labels = torch.randint(0, CLASSES, (images,), generator=drawn)
    rows = torch.arange(images)
    share = spec.training.weight_average
    return TrainingRun(
        spec=spec,
        model=model,
        optimizer=optimizer,
        images=DeviceImages(
            images=levels.to(device),
            labels=labels.to(device),
            boxes=torch.tensor([-0.8, -0.8, 0.8, 0.8]).expand(images, 4).contiguous().to(device),
            poses=None,
            digest="",
        ),
        train=rows[: images - 10].to(device),
        validation=rows[images - 10 :].to(device),
        average=WeightAverage(network, share) if share else None,
        micro_batches=micro_batches,
    )
