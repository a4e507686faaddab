"""``stnbench export``: write a trained network as a folder with weights, an ONNX file and a model card."""

import json
from collections.abc import Sequence

from stnbench.cli.evaluate import only_root
from stnbench.cli.parser import CommandParser, add_json, path
from stnbench.core.command import DONE
from stnbench.core.errors import SpecError
from stnbench.core.files import RunsLayout
from stnbench.report.exports import FOLDER, ExportOptions, export_trial
from stnbench.report.runs import TRIAL_HELP
from stnbench.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Export a complete trial and return the exit code; the store is only read.

    Raises:
        StnbenchError: if the trial or its checkpoint is missing, or it cannot be exported.
    """
    options = make_parser().parse_intermixed_args(arguments)
    layout = RunsLayout.from_environment()
    source = only_root(options.root)
    if source is not None and not options.half:
        raise SpecError("an export without --half reads no images", remedy="leave out dataset.root")
    choices = ExportOptions(with_onnx=not options.no_onnx, half=options.half, note=options.note, source=source)
    with Store.open(layout.store, writable=False) as store:
        done = export_trial(store, layout, options.trial, options.out, choices)
    if options.json:
        scores = {
            split: None if score is None else {"accuracy": score.mean, "low": score.low, "high": score.high}
            for split, score in (("validation", done.validation), ("test", done.test))
        }
        said = {"trial": done.trial_id, "name": done.name, "folder": str(done.folder), "files": dict(done.files)}
        print(json.dumps({**said, **scores, "onnx_difference": done.onnx_difference}))
        return DONE
    print(f"{done.name} (trial {done.trial_id})")
    for name, size in done.files.items():
        print(f"{size:>12,}  {done.folder / name}")
    if done.onnx_difference is not None:
        print(f"the ONNX file differs from torch by at most {done.onnx_difference:.1g}")
    print(f'load it: stnbench.load_trial("{done.folder}")')
    return DONE


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="stnbench export",
        description="Writes a trained network for use elsewhere: weights (safetensors), ONNX, and a card with its "
        "accuracy, data and recipe. stnbench.load_trial and `stnbench evaluate` read the folder.",
        epilog="Exit codes: 0 written, 2 it cannot be exported, and nothing is written.",
    )
    parser.add_argument("trial", help=TRIAL_HELP)
    out = f"the folder to write; an export that is there is replaced (default: {FOLDER}/TRIAL_ID)"
    parser.add_argument("--out", type=path, metavar="DIR", help=out)
    root = "the folder with the official files, which --half reads (default: the data folder)"
    parser.add_argument("root", nargs="*", metavar="dataset.root=DIR", help=root)
    half = "store weights in half precision, if the network then errs on the same images of the training half"
    parser.add_argument("--half", action="store_true", help=half)
    note = "a paragraph for the card, such as an estimate from a cross-validation"
    parser.add_argument("--note", default="", metavar="TEXT", help=note)
    parser.add_argument("--no-onnx", action="store_true", help="write no ONNX file")
    add_json(parser)
    return parser
