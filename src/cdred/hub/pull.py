"""Pull of a run that `cdred push` wrote, from a folder or the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path

from cdred.config import RunConfig
from cdred.config_file import read_config
from cdred.errors import UserError
from cdred.files import check_new_path, disk_errors, new_folder
from cdred.hub.address import HubAddress, parse_hub_address
from cdred.hub.client import blobs_of, cache_folder, download, list_remote
from cdred.hub.manifest import (
    MANIFEST,
    NOT_OF_THE_RUN,
    Entry,
    compare_names,
    copy_verified,
    hash_file,
    list_files,
    read_manifest,
)
from cdred.text import plural
from cdred.train.interrupt import LOCK
from cdred.types import LogFn


def pull(source: str, run: str | Path, *, revision: str | None = None, log: LogFn = print) -> Path:
    """Copy a pushed run to a new folder, and verify size and SHA-256 of every file.

    Args:
        source: a folder that `cdred push` wrote, or `hf://owner/name[/path][@revision]`.
        run: the new run folder. If it has the same files already, nothing is done.
        revision: branch, tag or commit of the repository, as in `source`.
        log: called with messages.

    Returns:
        The run folder.

    Raises:
        UserError: there is no pushed run, files are missing, altered or not in the manifest, or `run` has other
            content; nothing is written then.
    """
    run = Path(run)
    if "://" in source:
        folder, links_to, manifest = _download(parse_hub_address(source, revision), log)
    elif revision:
        raise UserError(f"--revision is for a repository, and {source} is a folder: omit it.")
    else:
        folder, links_to = Path(source).expanduser(), None
        if not (folder / MANIFEST).is_file():
            raise UserError(f"{source} has no {MANIFEST}: expected a folder that `cdred push` wrote.")
        manifest = read_manifest(folder / MANIFEST, source)
        _check_names(_of_the_run(list_files(folder)), manifest, source)
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        _check_identical(run, manifest)
        log(f"{run} has the same files already")
        return run
    check_new_path(run)
    with disk_errors(run.parent), new_folder(run) as draft:
        for name, entry in manifest.items():
            path = folder / name
            if path.is_symlink() and (links_to is None or not path.resolve().is_relative_to(links_to.resolve())):
                raise UserError(f"{path} is a link, which is not followed: replace it by a copy.")
            copy_verified(path, draft / name, entry)
        config = read_config(draft / "config.yaml")
    log(f"{plural(len(manifest), 'file')} of {source} verified: {run}")
    _log_code(config, run, log)
    return run


def _download(address: HubAddress, log: LogFn) -> tuple[Path, Path, dict[str, Entry]]:
    """Download a run, manifest first, so that no other file arrives.

    Returns:
        Its folder, the folder that links in it may point into, and its manifest.
    """
    remote = list_remote(address)
    prefix = f"{address.path}/" if address.path else ""
    sizes = {name.removeprefix(prefix): size for name, size in remote.sizes.items()}
    if MANIFEST not in sizes:
        raise UserError(f"{address} has no {MANIFEST}: expected a repository or folder that `cdred push` wrote.")
    snapshot = download(remote.address, [prefix + MANIFEST])
    manifest = read_manifest(snapshot / address.path / MANIFEST, str(address))
    _check_names(_of_the_run(sizes), manifest, str(address))
    total = sum(entry.bytes for entry in manifest.values())
    log(
        f"{remote.address}: {plural(len(manifest), 'file')}, {total:,} bytes, of which at most {remote.to_download:,} "
        f"are downloaded into {cache_folder()}"
    )
    snapshot = download(remote.address, [prefix + name for name in manifest])
    return snapshot / address.path, blobs_of(snapshot), manifest


def _of_the_run(sizes: Mapping[str, int | None]) -> dict[str, int | None]:
    return {name: size for name, size in sizes.items() if name not in NOT_OF_THE_RUN}


def _check_names(sizes: Mapping[str, int | None], manifest: Mapping[str, Entry], source: str) -> None:
    difference = compare_names(sizes, manifest)
    if difference:
        raise UserError(f"{source} is not what was pushed: {difference}.\nPush or download it again.")


def _check_identical(run: Path, manifest: Mapping[str, Entry]) -> None:
    """Check that an existing folder has the files of a manifest and no others.

    Raises:
        UserError: it has not.
    """
    if run.is_dir():
        sizes = {name: size for name, size in list_files(run).items() if name != LOCK}
        difference = compare_names(sizes, manifest)
        altered = next(
            (name for name in manifest if not difference and hash_file(run / name) != manifest[name][1]), None
        )
        difference = difference or (altered and f"{altered} has other content")
    else:
        difference = "it is no folder"
    if difference:
        raise UserError(f"{run} exists already, and is not the same run: {difference}.\nChoose another folder.")


def _log_code(config: RunConfig, run: Path, log: LogFn) -> None:
    """Log which modules an evaluation of the run would import."""
    suite, _, name = config.task.partition("/")
    modules = [*config.imports, *([config.task] if suite in ("env", "gym") and ":" in name else ())]
    if modules:
        log(
            f"{run / 'config.yaml'} names code that is executed when the run is evaluated or loaded: "
            f"{', '.join(modules)}. Read it first, if you do not trust who pushed the run."
        )
