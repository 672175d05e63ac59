"""Demonstrations from whatever they are stored in, validated; and back."""

from collections.abc import Sequence
from pathlib import Path

from cdred.data.formats.common import OnProgress, corrupt_as_user_error
from cdred.data.formats.registry import FormatName, detect_format, saver
from cdred.data.formats.safety import check_symlinks
from cdred.data.rescale_actions import rescaled
from cdred.data.validate import validated
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec


def load_demos(
    source: str | Path,
    spec: EnvSpec | None = None,
    *,
    allow_variable_horizon: bool = False,
    obs_keys: Sequence[str] | None = None,
    rescale_actions: bool = False,
    require_actions: bool = True,
    on_progress: OnProgress | None = None,
) -> DemoDataset:
    """Read and validate the demonstrations at `source`.

    Args:
        source: a Minari or LeRobot dataset folder, an HDF5 file as robomimic, ManiSkill or D4RL write it, or a `.npz`
            file; which of them is seen from what is in it (`cdred.data.formats.registry`).
        spec: the task they are meant for; shapes, lengths and the task's name are compared with it.
        allow_variable_horizon: accept truncated episodes of different lengths.
        obs_keys: where observations are in several parts, those to join, in that order; None for what is usual in the
            format, never pictures.
        rescale_actions: bring actions to [-1, 1] from the bounds that the file declares, else from the smallest and the
            largest in it.
        require_actions: refuse demonstrations that hold observations only.
        on_progress: called as `on_progress(done, total)` while reading.

    Raises:
        UserError: nothing there, an unknown format, or the first thing wrong with what is there.
    """
    path = Path(source).expanduser()
    dataset = read_demos(path, obs_keys, on_progress)
    if rescale_actions:
        dataset = rescaled(dataset, str(path))
    return validated(
        dataset, str(path), spec, allow_variable_horizon=allow_variable_horizon, require_actions=require_actions
    )


def read_demos(
    source: str | Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """What is at `source`, as `load_demos` takes it, not validated.

    Raises:
        UserError: nothing there, an unknown format, or a file that cannot be read as that format.
    """
    path = Path(source).expanduser()
    found = detect_format(path)
    if path.is_dir():
        check_symlinks(path)
    # Each reader names the file and what is wrong with it; this is for what no reader has thought of.
    with corrupt_as_user_error(path, found.name):
        return found.read(path, obs_keys, on_progress)


def inspect_demos(
    source: str | Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> tuple[DemoDataset, str | None]:
    """What is at `source` with actions in whatever bounds, and why `load_demos` refuses it; None if it does not.

    Raises:
        UserError: as `read_demos`, or something is broken about it.
    """
    dataset = validated(
        read_demos(source, obs_keys, on_progress),
        str(source),
        allow_variable_horizon=True,
        require_actions=False,
        bounded=False,
    )
    try:
        validated(dataset, str(source), require_actions=True)
    except UserError as error:
        return dataset, str(error)
    return dataset, None


def save_demos(
    dataset: DemoDataset,
    path: str | Path,
    format: FormatName | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Validate `dataset` and write it to a new file or folder, in one piece or not at all.

    Args:
        dataset: what to save.
        path: must not exist.
        format: None for `npz` where `path` ends in `.npz`, and `minari` elsewhere.
        on_progress: called as `on_progress(done, total)` while writing.

    Raises:
        UserError: `path` is taken, or the dataset is not valid.
    """
    # Mixed horizons are a danger to whoever learns from them, not to the file.
    dataset = validated(dataset, "these demonstrations", allow_variable_horizon=True)
    saver(Path(path), format)(dataset, Path(path), on_progress)
