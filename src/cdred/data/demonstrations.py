"""Loading, inspection and saving of demonstrations in any known format, and those bundled with the package."""

from collections.abc import Sequence
from pathlib import Path

from cdred.data import rescale
from cdred.data.formats.common import OnProgress, corrupt_as_user_error
from cdred.data.formats.registry import FormatName, detect_format, get_writer
from cdred.data.formats.safety import check_symlinks
from cdred.data.validate import validate_demos
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec

BUNDLED_FOLDER = Path(__file__).parent / "demonstrations"


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
        source: a Minari or LeRobot dataset folder, an HDF5 file of robomimic, ManiSkill or D4RL, or a `.npz` file; the
            format is detected from the content (`cdred.data.formats.registry`).
        spec: spec of the task they are meant for; shapes, lengths and the task's name are compared with it.
        allow_variable_horizon: accept truncated episodes of different lengths.
        obs_keys: if the file stores several observation arrays, the names of those to concatenate, in that order; None
            for the default of the format, which never includes images.
        rescale_actions: rescale actions to [-1, 1] from the bounds that the file declares, or else from the smallest
            and the largest action in it.
        require_actions: reject demonstrations without actions.
        on_progress: called as `on_progress(done, total)` while reading.

    Raises:
        UserError: no such file, an unknown format, or the first problem found in the data.
    """
    path = Path(source).expanduser()
    dataset = read_demos(path, obs_keys, on_progress)
    if rescale_actions:
        dataset = rescale.rescale_actions(dataset, str(path))
    return validate_demos(
        dataset, str(path), spec, allow_variable_horizon=allow_variable_horizon, require_actions=require_actions
    )


def read_demos(
    source: str | Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> DemoDataset:
    """Read the demonstrations at `source` as `load_demos` does, without validating them.

    Raises:
        UserError: no such file, an unknown format, or a file that cannot be read in its format.
    """
    path = Path(source).expanduser()
    detected = detect_format(path)
    if path.is_dir():
        check_symlinks(path)
    # Readers report the errors they expect, naming the file; this reports all others.
    with corrupt_as_user_error(path, detected.name):
        return detected.read(path, obs_keys, on_progress)


def inspect_demos(
    source: str | Path, obs_keys: Sequence[str] | None = None, on_progress: OnProgress | None = None
) -> tuple[DemoDataset, str | None]:
    """Read demonstrations with actions in any bounds, together with the reason why `load_demos` would reject them.

    Returns:
        The dataset, and the message of the error that `load_demos` raises on it; None if it raises none.

    Raises:
        UserError: as `read_demos`, or the data are malformed in another way than the actions' bounds.
    """
    dataset = validate_demos(
        read_demos(source, obs_keys, on_progress),
        str(source),
        allow_variable_horizon=True,
        require_actions=False,
        check_bounds=False,
    )
    try:
        validate_demos(dataset, str(source), require_actions=True)
    except UserError as error:
        return dataset, str(error)
    return dataset, None


def save_demos(
    dataset: DemoDataset,
    path: str | Path,
    format: FormatName | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Validate `dataset` and write it to a new file or folder atomically.

    Args:
        dataset: the demonstrations.
        path: must not exist.
        format: None for `npz` if `path` ends in `.npz`, else `minari`.
        on_progress: called as `on_progress(done, total)` while writing.

    Raises:
        UserError: `path` exists, or the dataset is not valid.
    """
    # Variable horizons are a problem for training, not for a file.
    dataset = validate_demos(dataset, "these demonstrations", allow_variable_horizon=True)
    get_writer(Path(path), format)(dataset, Path(path), on_progress)


def bundled_demos() -> dict[str, Path]:
    """Return the files of the demonstrations that come with the package, by task name `<suite>/<name>`."""
    files = sorted(BUNDLED_FOLDER.glob("*/*.npz"))
    return {file.relative_to(BUNDLED_FOLDER).with_suffix("").as_posix(): file for file in files}
