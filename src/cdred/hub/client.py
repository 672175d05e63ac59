"""Downloads from and uploads to the Hugging Face hub, by `huggingface_hub`, which is imported when it is needed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from cdred.data.formats.common import import_optional, summarize_exception
from cdred.errors import UserError
from cdred.files import disk_errors
from cdred.hub.address import HubAddress, with_revision

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class UnreachableError(UserError):
    """The hub cannot be reached from this machine."""


class RemoteFiles(NamedTuple):
    """Files of a repository at one commit.

    Attributes:
        address: what was asked for, at the commit as its revision.
        sizes: bytes of each file by its path in the repository; None if unknown.
        to_download: bytes of those that are not in the cache, as far as known.
    """

    address: HubAddress
    sizes: dict[str, int | None]
    to_download: int


def cache_folder() -> Path:
    """Return the folder of the cache of `huggingface_hub`."""
    return Path(import_optional("huggingface_hub.constants", "an address hf://", "hub").HF_HUB_CACHE)


def list_remote(address: HubAddress) -> RemoteFiles:
    """List the files at an address and find its commit.

    Raises:
        UnreachableError: the hub cannot be reached.
        UserError: there is nothing at the address, or access to it is refused.
    """
    hub = _hub(address)
    with _hub_errors(address):
        try:
            files = hub.snapshot_download(
                address.repo,
                repo_type=address.kind,
                revision=address.revision,
                allow_patterns=_patterns(address),
                dry_run=True,
            )
        except hub.errors.DryRunError as error:
            if isinstance(error.__cause__, hub.errors.HfHubHTTPError):
                raise error.__cause__ from None
            raise UnreachableError(
                f"{address}: the hub cannot be reached ({_reason(error)}).\n"
                "Check the network, and that HF_HUB_OFFLINE is not set."
            ) from error
    if not files:
        raise UserError(f"{address}: there is no such file or folder in the repository.")
    at_commit = with_revision(address, files[0].commit_hash)
    sizes = {file.filename: file.file_size for file in files}
    return RemoteFiles(at_commit, sizes, sum(file.file_size or 0 for file in files if file.will_download))


def download(address: HubAddress, names: Iterable[str] | None = None) -> Path:
    """Download files into the cache, unless they are in it. An interrupted download continues at the next call.

    Args:
        address: what to download.
        names: paths of single files in the repository; None for all at the address.

    Returns:
        The folder of the repository at that commit in the cache. Its files are links to `blobs` beside `snapshots`.

    Raises:
        UserError: as `list_remote`, or the disk is full.
    """
    patterns = _patterns(address) if names is None else [escape(name) for name in names]
    with _hub_errors(address), disk_errors(cache_folder()):
        return Path(
            _hub(address).snapshot_download(
                address.repo, repo_type=address.kind, revision=address.revision, allow_patterns=patterns
            )
        )


def find_cached(address: HubAddress) -> Path | None:
    """Return the folder that `download` returns, without using the network; None if not all files are in the cache."""
    hub = _hub(address)
    try:
        return Path(
            hub.snapshot_download(
                address.repo,
                repo_type=address.kind,
                revision=address.revision,
                allow_patterns=_patterns(address),
                local_files_only=True,
            )
        )
    except hub.errors.LocalEntryNotFoundError:
        return None


def blobs_of(snapshot: Path) -> Path:
    """Return the folder that the links in a result of `download` point into."""
    return snapshot.parents[1] / "blobs"


def check_login(address: HubAddress) -> None:
    """Check that there is a token to write with.

    Raises:
        UserError: there is none.
    """
    if _hub(address).get_token() is None:
        raise UserError(f"{address}: writing needs a token of Hugging Face with write access: {LOGIN}.")


def upload(folder: Path, address: HubAddress, *, private: bool, replaced: list[str], message: str) -> str:
    """Upload a folder in one commit, and create repository and branch if they do not exist.

    Args:
        folder: the files.
        address: where to; its revision is a branch.
        private: visibility of a new repository.
        replaced: patterns of files at the address that are deleted unless they are uploaded.
        message: title of the commit.

    Returns:
        The URL of the commit.

    Raises:
        UserError: no access, or the hub cannot be reached.
    """
    hub = _hub(address)
    with _hub_errors(address):
        hub.create_repo(address.repo, repo_type=address.kind, private=private, exist_ok=True)
        if address.revision:
            hub.create_branch(address.repo, branch=address.revision, repo_type=address.kind, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=address.repo,
            folder_path=folder,
            path_in_repo=address.path or None,
            repo_type=address.kind,
            revision=address.revision,
            commit_message=message,
            delete_patterns=replaced,
        )
    return str(commit.commit_url)


def _hub(address: HubAddress) -> ModuleType:
    import_optional("huggingface_hub.errors", str(address), "hub")
    return import_optional("huggingface_hub", str(address), "hub")


def _patterns(address: HubAddress) -> list[str] | None:
    """Return patterns of the files at an address: itself, and what is in it."""
    return [escape(address.path), f"{escape(address.path)}/*"] if address.path else None


@contextmanager
def _hub_errors(address: HubAddress) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into `UserError`s that say what to do."""
    errors = import_optional("huggingface_hub.errors", str(address), "hub")
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{address}: access has to be granted first: ask for it on the page of {address.repo} at "
            f"huggingface.co, then {LOGIN}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{address}: there is no such repository, or this login may not read it: check the name (data sets are "
            f"hf://datasets/...); for a private one, {LOGIN}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{address}: the repository has no branch, tag or commit {address.revision}.") from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{address}: not all of it can be downloaded ({_reason(error)}).\nTry again.") from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError(f"{address}: there is no token of Hugging Face: {LOGIN}.") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        hint = f"The token has no access: {LOGIN}, with one that has." if status in (401, 403) else "Try again later."
        raise UserError(f"{address}: the hub refused the request ({_reason(error)}).\n{hint}") from error
    except (errors.HFValidationError, ConnectionError) as error:
        raise UserError(f"{address}: {_reason(error)}.") from error
    except Exception as error:
        # Of the HTTP client: its name depends on the version of `huggingface_hub`.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2"):
            raise
        raise UnreachableError(
            f"{address}: the hub cannot be reached ({_reason(error)}).\nCheck the network."
        ) from error


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return summarize_exception(cause if isinstance(cause, Exception) else Exception(cause))
