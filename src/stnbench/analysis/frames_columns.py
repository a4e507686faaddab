"""The columns of a sweep's frames and their types. Units are in their names; what a row does not have is missing."""

from typing import Final

TRIAL_COLUMNS: Final = {
    "trial_id": "object",
    "cell_id": "object",
    "twin_cell_id": "object",
    "bare_id": "object",
    "label": "object",
    "is_twin": "bool",
    "seed": "int64",
    "state": "object",
    "attempts": "int64",
    "health": "object",
    "validation_accuracy": "float64",
    "validation_images": "Int64",
    "validation_correct": "Int64",
    "validation_loss": "float64",
    "validation_image_set": "object",
    "test_accuracy": "float64",
    "test_images": "Int64",
    "test_correct": "Int64",
    "test_loss": "float64",
    "test_image_set": "object",
    "parameters": "Int64",
    "flops": "Int64",
    "activation_bytes": "Int64",
    "epochs": "int64",
    "epoch_duration_s": "float64",
    "train_duration_s": "float64",
    "peak_memory_mib": "float64",
    "failure_kind": "object",
    "failure_message": "object",
    "commit": "object",
    "dirty": "boolean",
    "python": "object",
    "platform": "object",
    "host": "object",
    "device": "object",
    "threads": "Int64",
    "versions": "object",
    "dataset_digest": "object",
}
"""One row a trial, in the order of the sweep, and one column ``axis:<name>`` for each axis.

``twin_cell_id`` is the cell without transformers (its own where there are none), and ``bare_id`` is that of all cells
which differ from it in nothing but transformers and the sizes of the network. ``epochs`` is how many were asked for,
``epoch_duration_s`` the mean of their training times, evaluation left out. The failure is that of the last attempt.
``health`` is the verdict (``spec.verdict.Verdict``) on the worst transformer after the last epoch there is. Trials with
equal ``validation_image_set`` were scored on the same images, which the frame of images lists; older scores have none.
Trials of ``split=all`` have no validation score, for they were trained on those images.
"""

AXIS_PREFIX: Final = "axis:"

METRIC_PREFIXES: Final = {"validation": "validation_metric:", "test": "test_metric:"}
"""Begin the names of a frame's columns of metrics (``spec/metrics.py``), one for each that any trial has, by split."""

EPOCH_COLUMNS: Final = {
    "trial_id": "object",
    "attempt": "int64",
    "epoch": "int64",
    "step": "int64",
    "train_loss": "float64",
    "validation_loss": "float64",
    "validation_accuracy": "float64",
    "learning_rate": "float64",
    "train_duration_s": "float64",
    "evaluate_duration_s": "float64",
}
"""One row an epoch of an attempt."""

HEALTH_COLUMNS: Final = {
    "trial_id": "object",
    "attempt": "int64",
    "epoch": "int64",
    "place": "int64",
    "branch": "int64",
    "verdict": "object",
    "outside_share": "float64",
    "identity_distance": "float64",
    "determinant_mean": "float64",
    "theta_error": "float64",
    "theta_error_far_share": "float64",
    "theta_error_identity": "float64",
    "theta_error_identity_far_share": "float64",
    "movement": "float64",
    "movement_spread": "float64",
    "singular_max_mean": "float64",
    "singular_min_mean": "float64",
    "lost_share": "float64",
    "finite_share": "float64",
    "dead_share": "float64",
    "gradient_ratio": "float64",
    "accuracy_identity": "float64",
    "accuracy_mean": "float64",
    "accuracy_all_identity": "float64",
    "accuracy_all_mean": "float64",
}
"""One row a transformer and epoch: see ``spec.result.TransformerHealth``."""

ATTEMPT_COLUMNS: Final = {
    "trial_id": "object",
    "attempt": "int64",
    "token": "object",
    "state": "object",
    "slot": "object",
    "host": "object",
    "started_at": "datetime64[ns, UTC]",
    "finished_at": "datetime64[ns, UTC]",
    "duration_s": "float64",
    "failure_kind": "object",
    "failure_message": "object",
    "failure_traceback": "object",
    "failure_last_output": "object",
}
"""One row an attempt; MLflow's run of it has its ``token`` as a tag."""

IMAGE_COLUMNS: Final = {
    "split": "category",
    "image_set": "category",
    "image": "int32",
    "row": "Int64",
    "track": "Int64",
    "label": "uint16",
}
"""One row an image of a set that trials were scored on.

``image`` is its place in the order of the predictions, from 0, ``row`` its place in its half of the data set (``image``
where the set is the whole half), ``label`` its true class. Images of a ``track`` are near copies of each other.
"""

PREDICTION_COLUMNS: Final = {
    "trial_id": "category",
    "image": "int32",
    "prediction": "uint16",
    "label": "UInt16",
    "correct": "boolean",
}
"""One row a trial and image of one split: the class predicted after the last epoch, and the true one.

Label and ``correct`` are missing where an older version scored the trial, which kept no true labels.
"""
