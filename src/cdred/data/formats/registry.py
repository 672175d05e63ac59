"""Readable and writable demonstration formats, detected by the content of a file or folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from cdred.data.formats.d4rl import is_d4rl, read_d4rl
from cdred.data.formats.imitation import is_imitation, read_imitation
from cdred.data.formats.lerobot_read import is_lerobot, read_lerobot
from cdred.data.formats.lerobot_write import save_lerobot
from cdred.data.formats.maniskill import is_maniskill, read_maniskill
from cdred.data.formats.minari import is_minari, read_minari, save_minari
from cdred.data.formats.npz import is_npz, read_npz, save_npz
from cdred.data.formats.robomimic import is_robomimic, read_robomimic
from cdred.errors import UserError
from cdred.files import check_new_path, check_output_file
from cdred.types import DemoDataset

FormatName = Literal["minari", "lerobot", "npz"]


class Format(NamedTuple):
    """A readable format.

    Attributes:
        name: its name.
        description: how it is detected, for messages.
        matches: returns True if a path is in this format.
        read: `read(path, obs_keys, on_progress)` returns its dataset, not yet validated.
        reads_images: `read` has a fourth parameter, the `ImageRequest`.
    """

    name: str
    description: str
    matches: Callable[[Path], bool]
    read: Callable[..., DemoDataset]
    reads_images: bool = False


FORMATS = (
    Format("LeRobotDataset", "a folder with meta/info.json", is_lerobot, read_lerobot, reads_images=True),
    Format("Minari", "a folder with data/metadata.json", is_minari, read_minari, reads_images=True),
    Format("imitation", "a file .npz with arrays obs, acts, indices, terminal", is_imitation, read_imitation),
    Format("npz", "a file .npz with an array obs", is_npz, read_npz, reads_images=True),
    Format("robomimic", "HDF5 with data/demo_0", is_robomimic, read_robomimic, reads_images=True),
    Format("ManiSkill", "HDF5 with traj_0", is_maniskill, read_maniskill),
    Format("D4RL", "HDF5 with observations, actions, terminals", is_d4rl, read_d4rl),
)
WRITERS: dict[FormatName, Callable[..., None]] = {"minari": save_minari, "lerobot": save_lerobot, "npz": save_npz}


def detect_format(path: Path) -> Format:
    """Return the format of the file or folder `path`.

    Raises:
        UserError: it does not exist, or is in no known format.
    """
    if not path.exists():
        raise UserError(f"no demonstrations at {path}: no such file or folder.")
    detected = next((candidate for candidate in FORMATS if candidate.matches(path)), None)
    if detected is None:
        known = "; ".join(f"{candidate.name}: {candidate.description}" for candidate in FORMATS)
        raise UserError(f"{path} is in no known format. Known formats are {known}.")
    return detected


def get_writer(path: Path, name: FormatName | None) -> Callable[..., None]:
    """Return the writer of the format `name`; None for npz if `path` ends in `.npz`, else Minari."""
    return WRITERS[name or ("npz" if path.suffix == ".npz" else "minari")]


def check_output_path(path: Path, name: FormatName | None = None) -> None:
    """Check, before they are recorded, that demonstrations can be saved to `path` in the format `name`.

    Args:
        path: the output.
        name: as in `get_writer`.

    Raises:
        UserError: it exists already, or cannot be written to.
    """
    check_new_path(path)
    if get_writer(path, name) is WRITERS["npz"]:
        check_output_file(path)
