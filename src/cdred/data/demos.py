"""Demonstrations from whatever they are stored in, validated; and back."""

from pathlib import Path

from cdred.data.minari_format import data_folder, read_minari, save_minari
from cdred.data.npz import read_npz, save_npz
from cdred.data.validate import validated
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec


def open_demos(source: str | Path, spec: EnvSpec | None = None, *, mixed_horizons: bool = False) -> DemoDataset:
    """Read and validate the demonstrations at `source`.

    Args:
        source: a Minari dataset folder (Minari 0.5, HDF5), or a `.npz` file (its keys: `cdred.data.npz`).
        spec: the task they are meant for; shapes, lengths and the task's name are compared with it.
        mixed_horizons: accept truncated episodes of different lengths.

    Raises:
        UserError: nothing there, an unknown format, or the first thing wrong with what is there.
    """
    path = Path(source).expanduser()
    dataset = _reader(path)(path)
    return validated(dataset, str(path), spec, mixed_horizons=mixed_horizons)


def _reader(path: Path):
    if not path.exists():
        raise UserError(f"no demonstrations at {path}: there is no such file or folder.")
    if path.is_dir() and data_folder(path):
        return read_minari
    if path.suffix == ".npz":
        return read_npz
    raise UserError(f"{path} is in no known format: expected a Minari dataset folder (data/metadata.json) or .npz.")


def save_demos(dataset: DemoDataset, path: str | Path) -> None:
    """Validate `dataset` and write it to a new Minari dataset folder, or a new file if `path` ends in `.npz`.

    Raises:
        UserError: `path` is taken, or the dataset is not valid.
    """
    # Mixed horizons are a danger to whoever learns from them, not to the file.
    dataset = validated(dataset, "these demonstrations", mixed_horizons=True)
    save = save_npz if Path(path).suffix == ".npz" else save_minari
    save(dataset, path)
