"""Functions that write demonstration files with one defect each into the working folder."""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np

from cdred.data.formats.lerobot_write import save_lerobot
from cdred.data.formats.minari import save_minari
from cdred.types import DemoDataset, Trajectory

GIB = 2**30


def arrays(**changes):
    """Return npz arrays of two episodes of five steps of probe/point, with `changes`; None omits an array."""
    valid = {"obs": np.zeros((2, 6, 4), np.float32), "action": np.zeros((2, 5, 2), np.float32)} | changes
    return {key: value for key, value in valid.items() if value is not None}


def npz(**changes):
    return lambda: np.savez("d.npz", **arrays(**changes))


def with_value(key, index, value):
    """Return a function that writes an npz file with one number replaced."""

    def make():
        changed_arrays = arrays()
        changed_arrays[key][index] = value
        np.savez("d.npz", **changed_arrays)

    return make


def truncated(name, make, fraction=0.5):
    """Return a function that writes a file and cuts off its end."""

    def make_truncated():
        make()
        data = Path(name).read_bytes()
        Path(name).write_bytes(data[: int(fraction * len(data))])

    return make_truncated


def write_text(name, content):
    def make():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def all_of(*makes):
    return lambda: [make() for make in makes] and None


class _Payload:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def pickle_file(name):
    return lambda: Path(name).write_bytes(pickle.dumps({"obs": _Payload()}))


def pickled_member():
    np.savez("d.npz", obs=np.array([[_Payload()]], object), action=np.zeros((1, 5, 2)))


def oversized_member():
    """Write an array with a header that declares a terabyte, in an archive of a few bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1, 2**38, 2)})
    with zipfile.ZipFile("d.npz", "w") as archive:
        archive.writestr("obs.npy", header.getvalue())


def zip_bomb():
    with zipfile.ZipFile("d.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("obs.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (1, 256, 2**20)})
        for _ in range(256):
            member.write(bytes(2**20))


def hdf5(**changes):
    """Return a function that writes a D4RL file; a callable in place of an array creates the entry itself."""

    def make():
        with h5py.File("d.hdf5", "w") as file:
            rows = {
                "observations": np.zeros((5, 2)),
                "next_observations": np.zeros((5, 2)),
                "actions": np.zeros((5, 2)),
                "rewards": np.zeros(5),
                "terminals": np.zeros(5, bool),
                "timeouts": np.arange(5) == 4,
            } | changes
            for key, value in rows.items():
                if callable(value):
                    value(file, key)
                elif value is not None:
                    file[key] = value

    return make


def other_file():
    with h5py.File("other.hdf5", "w") as file:
        file["observations"] = np.zeros((5, 2))
        file["data/demo_0/obs/state"] = np.zeros((5, 2))


def external_link(file, key):
    file[key] = h5py.ExternalLink("other.hdf5", "/observations")


def external_raw(file, key):
    file.create_dataset(key, (5, 2), "f8", external=[("/etc/passwd", 0, 80)])


def virtual_array(file, key):
    layout = h5py.VirtualLayout((5, 2), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "observations", (5, 2))
    file.create_virtual_dataset(key, layout)


def unwritten_array(file, key):
    """Create an array of a terabyte without writing any of it."""
    file.create_dataset(key, (2**36, 2), "f8", chunks=(2**16, 2), compression="gzip")


def compressed_zeros(file, key):
    """Create a quarter of a gigabyte of zeros, compressed to a quarter of a megabyte."""
    file.create_dataset(key, data=np.zeros((2**25, 1)), chunks=(2**22, 1), compression="gzip", compression_opts=9)


def many_names(file, key):
    """Create one array under so many names that their total size is large."""
    array = file.create_dataset("whole", data=np.zeros((2**18, 2)))
    for index in range(400):
        file[f"copies/{index}"] = array
    file[key] = np.zeros((5, 2))


def robomimic(link=False, group="obs"):
    def make():
        with h5py.File("d.hdf5", "w") as file:
            data = file.create_group("data")
            if link:
                data["demo_0"] = h5py.ExternalLink("other.hdf5", "/data/demo_0")
            else:
                data[f"demo_0/{group}/state"] = np.zeros((5, 2))
                data["demo_0/actions"] = np.zeros((5, 2))

    return make


def linked_robomimic():
    with h5py.File("d.hdf5", "w") as file:
        file["data"] = h5py.ExternalLink("other.hdf5", "/data")


def maniskill(**changes):
    def make():
        with h5py.File("t.h5", "w") as file:
            episode = {
                "obs": np.zeros((6, 2)),
                "actions": np.zeros((5, 2)),
                "terminated": np.zeros(5, bool),
                "truncated": np.arange(5) == 4,
            } | changes
            for key, values in episode.items():
                if values is not None:
                    file[f"traj_0/{key}"] = values

    return make


def _dataset():
    trajectory = Trajectory(
        np.zeros((6, 2), np.float32), np.zeros((5, 2), np.float32), np.zeros(5, np.float32), False, True
    )
    return DemoDataset("probe/point", (trajectory,))


def edit_json(path, change):
    """Return a function that applies `change` to a JSON file."""

    def make():
        tree = json.loads(Path(path).read_text())
        change(tree)
        Path(path).write_text(json.dumps(tree))

    return make


def lerobot():
    save_lerobot(_dataset(), "d")


def minari():
    save_minari(_dataset(), "d")


def symlink_out(path):
    """Return a function that moves a file away and replaces it by a link."""

    def make():
        shutil.move(path, "elsewhere")
        Path(path).symlink_to(Path("elsewhere").resolve())

    return make


def edit_hdf5(path, change):
    def make():
        with h5py.File(path, "a") as file:
            change(file)

    return make
