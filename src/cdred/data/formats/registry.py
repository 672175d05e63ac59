"""The formats that demonstrations are read from and written to, recognised by what is in a file or folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from cdred.data.formats.d4rl import is_d4rl, read_d4rl
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
    """One format that can be read.

    Attributes:
        name: what it is called.
        looks: how a file or folder of it is told from others.
        fits: whether a path is one.
        read: `read(path, obs_keys, on_progress)`, the dataset in it, not yet validated.
    """

    name: str
    looks: str
    fits: Callable[[Path], bool]
    read: Callable[..., DemoDataset]


FORMATS = (
    Format("LeRobotDataset", "a folder with meta/info.json", is_lerobot, read_lerobot),
    Format("Minari", "a folder with data/metadata.json", is_minari, read_minari),
    Format("npz", "a file .npz with an array obs", is_npz, read_npz),
    Format("robomimic", "HDF5 with data/demo_0", is_robomimic, read_robomimic),
    Format("ManiSkill", "HDF5 with traj_0", is_maniskill, read_maniskill),
    Format("D4RL", "HDF5 with observations, actions, terminals", is_d4rl, read_d4rl),
)
SAVERS: dict[FormatName, Callable[..., None]] = {"minari": save_minari, "lerobot": save_lerobot, "npz": save_npz}


def detect_format(path: Path) -> Format:
    """The format of what is at `path`.

    Raises:
        UserError: nothing there, or in no format that is known.
    """
    if not path.exists():
        raise UserError(f"no demonstrations at {path}: there is no such file or folder.")
    found = next((one for one in FORMATS if one.fits(path)), None)
    if found is None:
        known = "; ".join(f"{one.name}: {one.looks}" for one in FORMATS)
        raise UserError(f"{path} is in no known format. Known are {known}.")
    return found


def saver(path: Path, name: FormatName | None) -> Callable[..., None]:
    """What writes the format `name`; None for npz where `path` ends in `.npz`, and Minari elsewhere."""
    return SAVERS[name or ("npz" if path.suffix == ".npz" else "minari")]


def require_place(path: Path, name: FormatName | None = None) -> None:
    """Check, before the work of recording them, that demonstrations can be saved to `path` as `saver` would.

    Raises:
        UserError: it is taken, or cannot be written to.
    """
    check_new_path(path)
    if saver(path, name) is SAVERS["npz"]:
        check_output_file(path)
