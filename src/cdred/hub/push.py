"""Push of a run: its shareable files, their manifest and a model card, to a folder or the Hugging Face hub."""

import json
import os
import shutil
import tempfile
import zlib
from collections import Counter
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cdred.checkpoint import checkpoint
from cdred.config import RunConfig
from cdred.config_file import read_config, to_yaml
from cdred.errors import UserError
from cdred.files import check_new_path, disk_errors, new_folder
from cdred.hub.address import parse_hub_address
from cdred.hub.card import model_card
from cdred.hub.client import check_login, upload
from cdred.hub.manifest import CHUNK, Entry, write_manifest
from cdred.hub.sanitize import Sanitizer
from cdred.report.results import read_result
from cdred.run_folder import DEMOS_FILE, DEMOS_RECORD
from cdred.text import plural
from cdred.train.interrupt import lock_folder
from cdred.types import LogFn

# Files at an address that a later push replaces, because they may have other names.
REPLACED = ["checkpoints/*", "videos/*", "result.json", "report.png", DEMOS_RECORD]


def push(
    run: str | Path,
    dest: str,
    *,
    revision: str | None = None,
    all_checkpoints: bool = False,
    replay_buffer: bool = False,
    videos: bool = True,
    private: bool = True,
    license: str | None = None,
    log: LogFn = print,
) -> str:
    """Push what is needed to evaluate, act with, export and report a run.

    Args:
        run: the run folder.
        dest: a new folder, or `hf://owner/name[/path][@revision]`.
        revision: branch of the repository, as in `dest`.
        all_checkpoints: push all checkpoints, that of the best evaluation too, instead of the newest.
        replay_buffer: push the replay buffer as well, without which the run cannot be resumed.
        videos: push the videos.
        private: visibility of a repository that does not exist yet.
        license: identifier of a license, for the model card.
        log: called with messages.

    Returns:
        The folder, or the URL of the commit.

    Raises:
        UserError: the folder is not that of a run with a checkpoint, the run is being trained, the destination exists
            or cannot be written to.
    """
    run = Path(run)
    _newest_checkpoint(run)
    address = parse_hub_address(dest, revision) if "://" in dest else None
    if address is None and revision:
        raise UserError(f"--revision is for a repository, and {dest} is a folder: omit it.")
    if address is None:
        check_new_path(Path(dest))
    else:
        check_login(address)
    # A run in training appends to its metrics and deletes checkpoints. In a folder that is read-only nobody trains.
    lock = lock_folder(run) if os.access(run, os.W_OK) else nullcontext()

    def write(folder: Path) -> None:
        folders = checkpoint.complete(run / "checkpoints") if all_checkpoints else [_newest_checkpoint(run)]
        _write(run, folder, dest if address else Path(dest).name, folders, replay_buffer, videos, license, log)

    with lock:
        if address is None:
            with disk_errors(Path(dest).parent), new_folder(Path(dest)) as folder:
                write(folder)
            return dest
        with tempfile.TemporaryDirectory(prefix="cdred-push-") as temporary:
            with disk_errors(Path(temporary)):
                write(Path(temporary))
            visibility = "private" if private else "public"
            log(f"uploading to {address}; the repository is made {visibility} if it does not exist yet")
            title = f"Push {run.resolve().name} with cdred {version('cdred')}"
            return upload(Path(temporary), address, private=private, replaced=REPLACED, message=title)


def _newest_checkpoint(run: Path) -> Path:
    newest = checkpoint.latest(run / "checkpoints")
    if newest is None or not (run / "config.yaml").exists():
        raise UserError(f"{run} is not a run with a checkpoint: expected config.yaml and checkpoints/ in it.")
    return newest


def _write(
    run: Path,
    folder: Path,
    address: str,
    checkpoints: list[Path],
    replay_buffer: bool,
    videos: bool,
    license: str | None,
    log: LogFn,
) -> None:
    """Write everything that is pushed to an empty folder."""
    sanitizer = Sanitizer([Path.home(), Path.cwd(), run.resolve(), run.resolve().parent])
    config = sanitizer.settings(read_config(run / "config.yaml"))
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    result = sanitizer.tree(read_result(run)) if (run / "result.json").exists() else {}
    demos = _read_json(run / DEMOS_RECORD, sanitizer)
    for name, content in (("result.json", result), (DEMOS_RECORD, demos)):
        if content:
            (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _copy_metrics(run / "metrics.jsonl", folder / "metrics.jsonl", sanitizer)
    for source in (run / "report.png", *(sorted((run / "videos").glob("*.mp4")) if videos else ())):
        if source.is_file():
            _copy(source, folder / source.relative_to(run))
    left_out = [name for source in checkpoints for name in _copy_checkpoint(source, folder, replay_buffer)]
    latest = max(int(source.name) for source in checkpoints if source.name.isdecimal())
    card = model_card(config, result, demos, latest, address, version("cdred"), license)
    (folder / "README.md").write_text(card, encoding="utf-8")
    _log_content(write_manifest(folder, version("cdred")), log)
    if left_out:
        log("without the replay buffer: the run can be evaluated, but not resumed; --replay-buffer pushes it")
    if sanitizer.replaced:
        shown = plural(len(set(sanitizer.replaced)), "path")
        log(f"{shown} of this machine left out, of which only the names of files remain")
    _log_missing(run, config, log)


def _read_json(path: Path, sanitizer: Sanitizer) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no file."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): restore it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: restore it.")
    return sanitizer.tree(content)


def _copy_metrics(source: Path, target: Path, sanitizer: Sanitizer) -> None:
    if not source.is_file():
        raise UserError(f"{source} does not exist: restore it.")
    with source.open(encoding="utf-8") as reader, target.open("w", encoding="utf-8") as writer:
        for number, line in enumerate(reader, 1):
            try:
                writer.write(sanitizer.json_text(line))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{source}, line {number} is not JSON ({error}): restore it.") from error


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        raise UserError(f"{source} is a link, which is not followed: replace it by a copy.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_checkpoint(source: Path, folder: Path, replay_buffer: bool) -> list[str]:
    """Copy a checkpoint, and return the names of the files that were left out.

    Raises:
        UserError: a file is damaged.
    """
    target, left_out = folder / "checkpoints" / source.name, []
    _copy(source / checkpoint.INDEX, target / checkpoint.INDEX)
    for name, entry in checkpoint.files(source).items():
        if name != checkpoint.ARRAYS and not replay_buffer:
            left_out.append(name)
            continue
        if not (source / name).is_file():
            raise UserError(f"{source / name} does not exist, so that the run cannot be pushed with it.")
        _copy(source / name, target / name)
        if _crc32(target / name) != entry["crc32"]:
            raise UserError(f"{source / name} is damaged: it has another checksum than in {checkpoint.INDEX}.")
    return left_out


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _log_content(manifest: dict[str, Entry], log: LogFn) -> None:
    """Log the bytes of each file of the run's folder and of each folder in it."""
    sizes = Counter[str]()
    for name, entry in manifest.items():
        sizes["/".join(Path(name).parts[:-1]) or name] += entry.bytes
    log(f"{plural(len(manifest), 'file')}, {sum(sizes.values()):,} bytes:")
    for name, size in sizes.items():
        log(f"  {name}  {size:,}")


def _log_missing(run: Path, config: RunConfig, log: LogFn) -> None:
    """Log what is not pushed, and needed to evaluate or resume the run."""
    if (run / DEMOS_FILE).exists():
        log(f"{DEMOS_FILE} is not pushed; resuming the run needs it, evaluating does not")
    files = [name for name in config.imports if name.endswith(".py")]
    if files:
        log(f"the code of the task, {', '.join(files)}, is not pushed; evaluating the run needs it")
