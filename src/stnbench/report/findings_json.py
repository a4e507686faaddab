"""Findings as JSON values and as fields of a CSV line. Shares in [0, 1], as everywhere for programs."""

from dataclasses import asdict

from stnbench.core.identity import Json
from stnbench.report.findings import Findings, FoldsFinding, GainFinding, Interaction, PairFinding
from stnbench.report.rounded import Scalar, estimate_fields, estimate_json, rounded

P_DIGITS = 9
"""Decimals of a p-value."""


def findings_json(findings: Findings) -> dict[str, Json]:
    """All of them; what is not known is null."""
    return {
        "folds": [_folds_json(recipe) for recipe in findings.folds],
        "differences": [_pair_json(pair) for pair in findings.pairs],
        "gains": [_gain_json(gain) for gain in findings.gains],
        "main_effects": [
            {
                "axis": effect.axis,
                "label": effect.label,
                "mean": rounded(effect.mean),
                "effect": estimate_json(effect.effect),
                "cells": effect.cells,
                "method": effect.method,
            }
            for effect in findings.main_effects
        ],
        "interactions": [_interaction_json(pair) for pair in findings.interactions],
        "importances": [
            {name: rounded(value) if isinstance(value, float) else value for name, value in asdict(item).items()}
            for item in findings.importances
        ],
        "pareto": [
            {
                "group": front.group or None,
                "cost": front.cost,
                "cells": [
                    {"cell_id": cell_id, "cell": label, "cost": rounded(cost), "mean": rounded(mean)}
                    for cell_id, label, cost, mean in zip(
                        front.cell_ids, front.labels, front.costs, front.means, strict=True
                    )
                ],
            }
            for front in findings.pareto
        ],
        "notes": list(findings.notes),
    }


def pair_fields(pair: PairFinding | None) -> dict[str, Scalar]:
    """The columns of a cell's line that say how it stands against the best; all empty for the best itself."""
    mcnemar = pair.mcnemar if pair else None
    return {
        "behind_p_corrected": _p(pair.corrected_p) if pair else None,
        **estimate_fields("behind_over_images_", pair.over_images if pair else None),
        "behind_over_images_p_corrected": _p(pair.over_images_corrected_p) if pair else None,
        "mcnemar_only_cell": mcnemar.only_cell if mcnemar else None,
        "mcnemar_only_best": mcnemar.only_base if mcnemar else None,
        "mcnemar_p": _p(mcnemar.p_value) if mcnemar else None,
        **estimate_fields("improvement_", pair.improvement if pair else None),
    }


def _folds_json(recipe: FoldsFinding) -> dict[str, Json]:
    return {
        "group": recipe.group or None,
        "cell": recipe.label,
        "folds": recipe.folds,
        "scored_folds": recipe.scored_folds,
        "networks": recipe.networks,
        "images": recipe.images,
        "errors": rounded(recipe.errors),
        "accuracy": estimate_json(recipe.accuracy),
        "standing": recipe.standing.value,
        "difference": estimate_json(recipe.difference) if recipe.difference else None,
        "p_corrected": _p(recipe.corrected_p),
    }


def _pair_json(pair: PairFinding) -> dict[str, Json]:
    return {
        "group": pair.group or None,
        "cell_id": pair.cell_id,
        "cell": pair.label,
        "best_cell_id": pair.best_cell_id,
        "best": pair.best_label,
        "standing": pair.standing.value,
        "difference": estimate_json(pair.difference) if pair.difference else None,
        "p_corrected": _p(pair.corrected_p),
        "over_images": estimate_json(pair.over_images) if pair.over_images else None,
        "over_images_p_corrected": _p(pair.over_images_corrected_p),
        "mcnemar": asdict(pair.mcnemar) | {"p_value": _p(pair.mcnemar.p_value)} if pair.mcnemar else None,
        "improvement": estimate_json(pair.improvement) if pair.improvement else None,
        "seeds_needed": pair.seeds_needed,
    }


def _gain_json(gain: GainFinding) -> dict[str, Json]:
    return {
        "group": gain.group or None,
        "cell_id": gain.cell_id,
        "cell": gain.label,
        "twin_cell_id": gain.twin_cell_id,
        "equal_parameters": gain.is_equal_size,
        "parameter_ratio": rounded(gain.parameter_ratio),
        "difference": estimate_json(gain.difference),
        "over_images": estimate_json(gain.over_images) if gain.over_images else None,
    }


def _interaction_json(pair: Interaction) -> dict[str, Json]:
    return {
        "first": pair.first,
        "second": pair.second,
        "first_labels": list(pair.first_labels),
        "second_labels": list(pair.second_labels),
        "means": [[rounded(value) for value in row] for row in pair.means],
        "residuals": [[rounded(value) for value in row] for row in pair.residuals],
        "seeds": pair.seeds,
        "cells": pair.cells,
        "f": rounded(pair.statistic),
        "p": _p(pair.p_value),
        "p_corrected": _p(pair.corrected_p),
    }


def _p(p_value: float | None) -> float | None:
    return None if p_value is None else round(p_value, P_DIGITS)
