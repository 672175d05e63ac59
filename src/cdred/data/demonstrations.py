"""Loading, inspection and saving of demonstrations in any known format, and those bundled with the package."""

from collections.abc import Sequence
from pathlib import Path

from cdred.data import rescale
from cdred.data.formats.cameras import RENDER_HINT, ImageRequest
from cdred.data.formats.common import OnProgress, corrupt_as_user_error
from cdred.data.formats.npz_archive import read_archive
from cdred.data.formats.registry import FormatName, check_output_path, detect_format, get_writer
from cdred.data.formats.safety import check_symlinks
from cdred.data.images import check_requested
from cdred.data.rescale import ActionBounds
from cdred.data.validate import validate_demos
from cdred.errors import UserError
from cdred.task_name import IMAGE_SIZE
from cdred.types import DemoDataset, EnvSpec

BUNDLED_FOLDER = Path(__file__).parent / "demonstrations"
# Images are read from recordings by cdred, as they are, and from no others.
RECORDED = ImageRequest()


def load_demos(
    source: str | Path,
    spec: EnvSpec | None = None,
    *,
    allow_variable_horizon: bool = False,
    obs_keys: Sequence[str] | None = None,
    camera: str | None = None,
    image_size: int | None = None,
    rescale_actions: bool = False,
    action_low: Sequence[float] | float | None = None,
    action_high: Sequence[float] | float | None = None,
    require_actions: bool = True,
    on_progress: OnProgress | None = None,
) -> DemoDataset:
    """Read and validate the demonstrations at `source`.

    Args:
        source: a Minari or LeRobot dataset folder, an HDF5 file of robomimic, ManiSkill or D4RL, or a `.npz` file; the
            format is detected from the content (`cdred.data.formats.registry`).
        spec: spec of the task they are meant for; shapes, lengths, the task's name and the units of actions are
            compared with it. Actions in the environment's own units are rescaled to [-1, 1] if the file declares them,
            and the columns of observations are put into the task's order, by the names of its parts.
        allow_variable_horizon: accept truncated episodes of different lengths.
        obs_keys: if the file stores several observation arrays, the names of those to concatenate, in that order; None
            for the default of the format, which never includes images.
        camera: name of the camera to read images of; None if there is only one.
        image_size: height and width that images are resized to; None for that of `spec`. Without a spec images are
            read, beside those of recordings by cdred, only if `camera` or `image_size` is given.
        rescale_actions: rescale actions to [-1, 1] from the bounds that the file declares, or else from those of
            `spec`.
        action_low: lower bounds of the actions, a number or one per component, to rescale them from whatever the file
            declares.
        action_high: upper bounds of the actions, given with `action_low`.
        require_actions: reject demonstrations without actions.
        on_progress: called as `on_progress(done, total)` while reading.

    Raises:
        UserError: no such file, an unknown format, or the first problem found in the data.
    """
    path = Path(source).expanduser()
    images = requested_images(spec, camera, image_size)
    dataset = read_demos(path, obs_keys, on_progress, images)
    if spec is None:
        check_requested(dataset, str(path), images)
    given = given_bounds(action_low, action_high)
    if rescale_actions or given:
        dataset = rescale.rescale_actions(dataset, str(path), given, ActionBounds.of_task(spec) if spec else None)
    elif spec is not None:
        dataset = rescale.to_task_units(dataset, str(path), spec)
    return validate_demos(
        dataset, str(path), spec, allow_variable_horizon=allow_variable_horizon, require_actions=require_actions
    )


def given_bounds(low: Sequence[float] | float | None, high: Sequence[float] | float | None) -> ActionBounds | None:
    """Return the bounds that the user gives, or None.

    Raises:
        UserError: only one of the two is given.
    """
    if (low is None) != (high is None):
        raise UserError("--action-low and --action-high are given together, or not at all.")
    return None if low is None or high is None else ActionBounds.given(low, high)


def requested_images(
    spec: EnvSpec | None = None, camera: str | None = None, image_size: int | None = None
) -> ImageRequest | None:
    """Return the images to read: those that a task observes, or those that are named, or those of recordings by cdred.

    Args:
        spec: spec of the task; None if it is not known.
        camera: name of the camera; None if there is only one.
        image_size: height and width; None for those of `spec`, or else `IMAGE_SIZE`.

    Returns:
        None for a task without images.

    Raises:
        UserError: a camera or size is given for a task without images, or another size than the task's.
    """
    named = camera is not None or image_size is not None
    if spec is not None and spec.image_size is None and named:
        raise UserError(
            f"a camera or image size is given for {spec.task}, which observes no images: add --obs pixels or --obs "
            "both, or parameters of the task's name, such as ?obs=both."
        )
    if spec is not None:
        if image_size not in (None, spec.image_size):
            raise UserError(f"image size {image_size} contradicts that of {spec.task}, {spec.image_size}: omit it.")
        return None if spec.image_size is None else ImageRequest(spec.image_size, camera)
    return ImageRequest(image_size or IMAGE_SIZE, camera) if named else RECORDED


def read_demos(
    source: str | Path,
    obs_keys: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
    images: ImageRequest | None = RECORDED,
) -> DemoDataset:
    """Read the demonstrations at `source` as `load_demos` does, without validating them.

    Args:
        source: as in `load_demos`.
        obs_keys: as in `load_demos`.
        on_progress: as in `load_demos`.
        images: the images to read; None for none.

    Raises:
        UserError: no such file, an unknown format, or a file that cannot be read in its format.
    """
    path = Path(source).expanduser()
    detected = detect_format(path)
    if path.is_dir():
        check_symlinks(path)
    # Readers report the errors they expect, naming the file; this reports all others.
    with corrupt_as_user_error(path, detected.name):
        if detected.reads_images:
            return detected.read(path, obs_keys, on_progress, images)
        if images is not None and images.size is not None:
            raise UserError(f"{path}: images are not read from the format {detected.name}; {RENDER_HINT}.")
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
    *,
    action_low: Sequence[float] | float | None = None,
    action_high: Sequence[float] | float | None = None,
) -> None:
    """Validate `dataset` and write it to a new file or folder atomically.

    Args:
        dataset: the demonstrations, with actions in [-1, 1] unless `action_low` and `action_high` are given.
        path: must not exist.
        format: None for `npz` if `path` ends in `.npz`, else `minari`.
        on_progress: called as `on_progress(done, total)` while writing.
        action_low: lower bounds of the environment's own units, which the actions are in; a number or one per
            component. They are rescaled to [-1, 1].
        action_high: upper bounds, given with `action_low`.

    Raises:
        UserError: `path` exists, or the dataset is not valid.
    """
    if given := given_bounds(action_low, action_high):
        dataset = rescale.rescale_actions(dataset, "these demonstrations", given)
    # Variable horizons are a problem for training, not for a file.
    dataset = validate_demos(dataset, "these demonstrations", allow_variable_horizon=True)
    check_output_path(Path(path), format)
    get_writer(Path(path), format)(dataset, Path(path), on_progress)


def bundled_demos() -> dict[str, Path]:
    """Return the files of the demonstrations that come with the package, by task name `<suite>/<name>`."""
    files = sorted(BUNDLED_FOLDER.glob("*/*.npz"))
    return {file.relative_to(BUNDLED_FOLDER).with_suffix("").as_posix(): file for file in files}


def num_bundled(path: Path) -> int:
    """Return the number of episodes in a file of `bundled_demos`, of which nothing else is read."""
    return len(read_archive(path, (), ("lengths",), required=("lengths",)).arrays["lengths"])
