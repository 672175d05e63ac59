"""Demonstrations that are not on this machine: files of the Hugging Face hub, and Minari's datasets."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from cdred.data.formats.common import summarize_exception
from cdred.errors import UserError
from cdred.files import disk_errors
from cdred.hub.address import HUB, HubAddress, parse_hub_address, parse_minari_id, with_revision
from cdred.hub.client import UnreachableError, blobs_of, cache_folder, download, find_cached, list_remote
from cdred.hub.manifest import hash_files
from cdred.text import plural
from cdred.types import LogFn

# Key of `Fetched.origin` in the provenance of demonstrations.
ORIGIN_KEY = "origin"


class Fetched(NamedTuple):
    """Downloaded demonstrations.

    Attributes:
        path: of their file or folder on this machine.
        origin: address, commit if there is one, and SHA-256 of the files, for the provenance.
    """

    path: Path
    origin: dict[str, Any]


def fetch_demos(address: str, log: LogFn) -> Fetched:
    """Download demonstrations, unless they are on this machine already.

    Args:
        address: `hf://...` or `minari://...`.
        log: called with what is downloaded, its size and the folder it is kept in.

    Raises:
        UserError: there is nothing at the address, or it cannot be downloaded.
    """
    return _fetch_hub(parse_hub_address(address), log) if address.startswith(HUB) else _fetch_minari(address, log)


def _fetch_hub(address: HubAddress, log: LogFn) -> Fetched:
    try:
        remote = list_remote(address)
        log(
            f"demonstrations: {remote.address}, {plural(len(remote.sizes), 'file')}, of which {remote.to_download:,} "
            f"bytes are downloaded into {cache_folder()}"
        )
        snapshot = download(remote.address)
    except UnreachableError:
        snapshot = find_cached(address)
        if snapshot is None:
            raise
        log(f"demonstrations: the hub cannot be reached, so {address} is read from {snapshot}, as of its last download")
    path, commit = snapshot / address.path, snapshot.name
    at_commit = str(with_revision(address, commit))
    return Fetched(path, {"address": at_commit, "commit": commit, "sha256": hash_files(path, blobs_of(snapshot))})


def _fetch_minari(address: str, log: LogFn) -> Fetched:
    dataset_id = parse_minari_id(address)
    import minari
    from minari.storage.datasets_root_dir import get_dataset_path

    path = get_dataset_path(dataset_id)
    if path.is_dir():
        log(f"demonstrations: {address} is at {path}")
    else:
        _download_minari(minari, dataset_id, path, log)
    return Fetched(path, {"address": address, "sha256": hash_files(path)})


def _download_minari(minari: Any, dataset_id: str, path: Path, log: LogFn) -> None:
    address = f"minari://{dataset_id}"
    try:
        remote = minari.list_remote_datasets(prefix=dataset_id).get(dataset_id)
        if remote is None:
            raise UserError(f"{address}: Minari's server has no such dataset. `minari list remote` lists them.")
        log(f"demonstrations: {address}, {remote.get('dataset_size', 'unknown')} MB, are downloaded into {path}")
        with disk_errors(path.parent), warnings.catch_warnings():
            # A newer version of the dataset: which one is used is the user's choice.
            warnings.simplefilter("ignore")
            minari.download_dataset(dataset_id)
    except ImportError as error:
        raise UserError(f"{address}: downloading it needs huggingface_hub: pip install 'cdred[hub]'.") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{address} cannot be downloaded by Minari ({summarize_exception(error)}).\n"
            f"Remove {path} if it exists, and try again."
        ) from error
