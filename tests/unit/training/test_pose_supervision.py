"""A transformer that is told the true pose in training: what it costs, what it learns, and where it cannot be told."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from narrowed import known, only
from step_cases import CLASSES, SIDE, make_run, placed, trial

from stnbench.core.errors import SpecError
from stnbench.nn.spatial_transformer import ParallelTransformers
from stnbench.spec.optimizer import AdamSpec
from stnbench.training.step import StaticStep, TrainingRun, pose_penalty, pose_weights


def posed(weight: float = 1.0, **keys: Any) -> TrainingRun:
    """A run of an affine transformer that is told poses, on images whose signs are known to lie off the centre."""
    spec = trial(placed("affine", pose_weight=weight, **keys), optimizer=AdamSpec(learning_rate=0.01))
    run = make_run(spec, torch.device("cpu"))
    poses = torch.eye(3).repeat(len(run.images), 1, 1)
    poses[:, 0, 0] = poses[:, 1, 1] = 0.5
    poses[:, 0, 2] = 0.25
    return dataclasses.replace(run, images=dataclasses.replace(run.images, poses=poses))


@pytest.mark.parametrize("keys", [{"align_corners": True}, {"align_corners": False, "output_size": 10}])
def test_a_transformer_that_is_told_the_pose_has_no_penalty_where_it_shows_the_sign(keys: dict[str, Any]) -> None:
    """It is 0 where the sign fills the output from edge to edge, and the identity has a distance from that."""
    run = posed(**keys)
    ((place, weight),) = pose_weights(run).items()
    transformer = only(ParallelTransformers, run.model.network.transformers[str(place)]).transformers()[0]
    images, boxes, poses = run.images.images[:4], run.images.boxes[:4], known(run.images.poses)[:4]
    scale = (SIDE - 1) / SIDE if keys["align_corners"] else 1.0
    output = (scale if keys.get("output_size") is None else 1.0) / scale
    told = torch.tensor([0.5 * output, 0, 0.25 / scale, 0, 0.5 * output, 0])
    with torch.no_grad():
        at_first = pose_penalty({place: weight}, run.model.explain(images, boxes), poses, side=SIDE)
        known(transformer.localization).parameters_layer.bias.copy_(told)
        explained = run.model.explain(images, boxes)

    torch.testing.assert_close(
        pose_penalty({place: weight}, explained, poses, side=SIDE), torch.tensor(0.0), rtol=0, atol=1e-10
    )
    assert at_first > 0.1


@pytest.mark.slow
def test_a_transformer_learns_the_pose_that_it_is_told() -> None:
    """The penalty falls, and the loss that is recorded stays the cross-entropy."""
    run = posed(weight=30.0)  # labels of noise pull elsewhere
    steps = StaticStep(run)
    images, boxes, poses = run.images.images[:6], run.images.boxes[:6], known(run.images.poses)[:6]
    with torch.no_grad():
        before = pose_penalty(pose_weights(run), run.model.explain(images, boxes), poses, side=SIDE)
    for epoch in range(8):
        steps.begin_epoch(epoch, epoch * run.steps)
        for _ in range(run.steps):
            steps.take()
    with torch.no_grad():
        after = pose_penalty(pose_weights(run), run.model.explain(images, boxes), poses, side=SIDE)

    assert after < before / 2
    assert float(steps.losses[0]) < 2 * math.log(CLASSES)


def test_poses_that_are_not_known_cannot_be_told() -> None:
    """The data set is named; at a later place the specification refuses."""
    run = posed()
    bare = dataclasses.replace(run, images=dataclasses.replace(run.images, poses=None))
    with pytest.raises(SpecError, match="the data set signs knows no poses"):
        StaticStep(bare)
    with pytest.raises(SpecError, match=r"pose_weight is 1.0.*0 at later places"):
        placed("affine", place=2, pose_weight=1.0)
