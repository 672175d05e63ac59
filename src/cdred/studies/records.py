"""Finished runs of studies in files, `runs.json`, that have all that tables and figures are made of.

So a study continues where its run folders no longer exist, and studies share the runs that they have in common.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cdred.config import RunConfig, parse_settings
from cdred.config_file import plain_settings
from cdred.errors import UserError
from cdred.files import atomic_write_text
from cdred.run_folder import finished_result, has_checkpoint
from cdred.studies.scores import Curve, read_curves
from cdred.sweep.plan import SweepRun

FILE = "runs.json"


class RunRecord(NamedTuple):
    """A finished run.

    Attributes:
        config: its settings, as from `portable`.
        commit: commit that it was trained at; None if unknown.
        device: device that it was trained on.
        curves: evaluations of each seed.
    """

    config: RunConfig
    commit: str | None
    device: str
    curves: list[Curve]


def portable(config: RunConfig, folder: Path) -> RunConfig:
    """Return settings without the run folder, and with paths in the folder of a study's runs relative to it."""

    def relative(path: str) -> str:
        return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path

    return replace(config, out="", demos=relative(config.demos), init_from=relative(config.init_from))


def record_run(run: SweepRun, folder: Path) -> RunRecord | None:
    """Return the record of a run; None if it has not finished.

    Args:
        run: the run.
        folder: folder of the study's runs.
    """
    result = finished_result(run.folder, run.config)
    if result is None:
        return None
    return RunRecord(portable(run.config, folder), result["commit"], result["device"], list(read_curves(run)))


def find_record(records: Iterable[RunRecord], run: SweepRun, folder: Path) -> RunRecord | None:
    """Return the first record with the settings of a run, under the run's label; None if there is none."""
    wanted = portable(run.config, folder)
    found = next((record for record in records if record.config == wanted), None)
    return found and found._replace(curves=[curve._replace(label=run.label) for curve in found.curves])


def recorded_runs(runs: Sequence[SweepRun], records: Sequence[RunRecord], folder: Path) -> dict[SweepRun, RunRecord]:
    """Return the records of the runs that need no training.

    Args:
        runs: the runs of a study.
        records: records of this study and others.
        folder: folder of the runs; what has a checkpoint there is not taken from the records, nor is a run that another
            one, which has to be trained, begins with.
    """
    found = {run: find_record(records, run, folder) for run in runs if not has_checkpoint(run.folder)}
    begun_with = {run.config.init_from for run in runs if found.get(run) is None}
    return {run: record for run, record in found.items() if record is not None and str(run.folder) not in begun_with}


def write_records(folder: Path, records: Sequence[RunRecord]) -> None:
    """Write `runs.json` to the folder of a study's results, an object per line.

    Runs that the file has in addition, such as those of more seeds, are kept.
    """
    path, configs = folder / FILE, [record.config for record in records]
    kept = [record for record in _read(path) if record.config not in configs] if path.exists() else []
    lines = ",\n".join(json.dumps(_to_json(record)) for record in (*records, *kept))
    atomic_write_text(path, f"[\n{lines}\n]\n")


def read_records(folder: Path) -> list[RunRecord]:
    """Read the records of a study, and then those of the other studies beside it.

    Runs with options that no longer exist are left out.

    Args:
        folder: folder of the study's results.

    Raises:
        UserError: a file is damaged.
    """
    others = sorted(path for path in folder.parent.glob(f"*/{FILE}") if path.parent != folder)
    return [record for path in (folder / FILE, *others) if path.exists() for record in _read(path)]


def _read(path: Path) -> list[RunRecord]:
    try:
        entries = json.loads(path.read_text())
        return [record for entry in entries if (record := _from_json(entry)) is not None]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}).\nRestore it, or delete it: then its runs are trained again."
        ) from error


def _to_json(record: RunRecord) -> dict[str, Any]:
    curves = [curve._asdict() for curve in record.curves]
    return record._asdict() | {"config": plain_settings(record.config), "curves": curves}


def _from_json(entry: dict[str, Any]) -> RunRecord | None:
    curves = [Curve(**fields) for fields in entry["curves"]]
    curves = [curve._replace(gradient_norm=curve.gradient_norm and tuple(curve.gradient_norm)) for curve in curves]
    try:
        config = parse_settings(entry["config"], ".".join)
    except UserError:
        return None
    return RunRecord(config, entry["commit"], entry["device"], curves)
