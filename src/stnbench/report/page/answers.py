"""What trials answered to the images that they were scored on, and which of these most of them get wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stnbench.report.page.html import bullets, data_uri, escape
from stnbench.spec.data import Split

MOST_HARD: Final = 24


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """What trials answered to the images of one split of one data set.

    Attributes:
        split: which one.
        task: what the images are, where a sweep has several sets; empty where it has one.
        class_names: in label order.
        labels: int64 (images,), the true classes.
        tracks: int64 (images,), one number a track; of images whose tracks are unknown, one an image.
        rows: int64 (images,), where the images are in their half of the data set.
        predictions: int64 (images,) by trial id.
        best: the trials of the best cell, whose label is ``best_label``.
        pictures: uint8 (channels, height, width) by place among the images, for the hardest ones; None where the data
            are not on this machine.
    """

    split: Split
    task: str
    class_names: Sequence[str]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    rows: NDArray[np.int64]
    predictions: Mapping[str, NDArray[np.int64]]
    best: Sequence[str]
    best_label: str
    trials: int
    pictures: Mapping[int, NDArray[np.uint8]] | None

    def name_of(self, label: int) -> str:
        """The class's name; its number where it has none."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else f"class {label}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hard:
    """An image that many trials get wrong: its place among the images, and what they take it for most often."""

    place: int
    label: int
    wrong: int
    trials: int
    answer: int
    answered: int


def hardest(
    labels: NDArray[np.int64],
    tracks: NDArray[np.int64],
    predictions: Sequence[NDArray[np.int64]],
    most: int = MOST_HARD,
) -> list[Hard]:
    """The images that most trials get wrong, one of each track, the hardest first; none that every trial gets right."""
    answers = np.stack(list(predictions))
    wrong = (answers != labels).sum(axis=0)
    order = np.lexsort((np.arange(len(labels)), -wrong))
    _, first = np.unique(tracks[order], return_index=True)
    found = []
    for place in order[np.sort(first)][:most].tolist():
        if wrong[place]:
            counts = Counter(int(answer) for answer in answers[:, place] if answer != labels[place])
            answer, answered = min(counts.items(), key=lambda item: (-item[1], item[0]))
            count, label = int(wrong[place]), int(labels[place])
            hard = Hard(place=place, label=label, wrong=count, trials=len(answers), answer=answer, answered=answered)
            found.append(hard)
    return found


def hardest_lines(answers: Answers) -> Iterator[str]:
    """The hardest images with their pictures, or why there are none."""
    found = hardest(answers.labels, answers.tracks, list(answers.predictions.values()))
    of_task = f" of {answers.task}" if answers.task else ""
    if not found:
        yield f'<p class="note">Every trial gets every image{escape(of_task)} right.</p>'
        return
    count, trials = len(answers.predictions), answers.trials
    among = f"{count} trials" if count == trials else f"{count} of {trials} trials"
    yield (
        f'<p class="note">The {answers.split} images{escape(of_task)} that most of {among} get wrong, one of each '
        "track: what it is, what it is most often taken for, and how many get it wrong.</p>"
    )
    if answers.pictures is None:
        yield (
            '<p class="note">The pictures are not shown: the data set is not on the machine that wrote this page '
            "(its cache is looked for in STNBENCH_DATA, by the digest that the trials recorded).</p>"
        )
        yield from bullets(_hard_line(answers, hard) for hard in found)
        return
    yield '<ul class="pictures">'
    for hard in found:
        uri = data_uri("png", picture_png(answers.pictures[hard.place]))
        name = escape(answers.name_of(hard.label))
        yield f'<li><img src="{uri}" alt="{name}, image {int(answers.rows[hard.place])}" loading="lazy">'
        yield f'<strong>{name}</strong><br><span class="wrong">{escape(_answer(answers, hard))}</span><br>'
        yield f'<span class="faint">{escape(_share(hard))}</span></li>'
    yield "</ul>"


def picture_png(image: NDArray[np.uint8], least_px: int = 96) -> bytes:
    """An image (channels, height, width) as PNG, a small one enlarged; two channels are red and green."""
    import io

    from PIL import Image

    channels = len(image)
    if channels == 1:
        image = np.repeat(image, 3, axis=0)
    elif channels == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if min(picture.size) < least_px // 2:
        step = -(-(least_px // 2) // min(picture.size))
        picture = picture.resize((picture.width * step, picture.height * step), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _hard_line(answers: Answers, hard: Hard) -> str:
    row = int(answers.rows[hard.place])
    return f"image {row}, {answers.name_of(hard.label)}: {_answer(answers, hard)}; {_share(hard)}"


def _answer(answers: Answers, hard: Hard) -> str:
    return f"taken for {answers.name_of(hard.answer)} by {hard.answered}"


def _share(hard: Hard) -> str:
    return f"wrong in {100 * hard.wrong / hard.trials:.0f} % of {hard.trials} {_trials(hard.trials)}"


def _trials(count: int) -> str:
    return "trial" if count == 1 else "trials"
