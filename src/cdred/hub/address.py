"""Addresses of repositories of the Hugging Face hub, `hf://`, and of Minari's datasets, `minari://`."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from cdred.errors import UserError

HUB, MINARI = "hf://", "minari://"
EXPECTED = "expected hf://OWNER/NAME[/PATH][@REVISION], or hf://datasets/OWNER/NAME[/PATH][@REVISION]"
# The first word of addresses of other kinds of repositories.
OTHER_KINDS = ("spaces", "buckets", "kernels")
MINARI_ID = r"(?:[-\w]+/)*[-\w]+-v\d+"


@dataclass(frozen=True)
class HubAddress:
    """A file or folder in a repository of the Hugging Face hub.

    Attributes:
        repo: `owner/name`.
        kind: what the hub calls the type of the repository.
        path: path in the repository; empty for all of it.
        revision: branch, tag or commit; None for the branch `main`.
    """

    repo: str
    kind: Literal["model", "dataset"] = "model"
    path: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        repo = f"datasets/{self.repo}" if self.kind == "dataset" else self.repo
        path = f"/{self.path}" if self.path else ""
        return f"{HUB}{repo}{path}" + (f"@{self.revision}" if self.revision else "")


def is_remote(text: str) -> bool:
    """Check if a text is the address of something that is not on this machine."""
    return text.startswith((HUB, MINARI))


def parse_hub_address(text: str, revision: str | None = None) -> HubAddress:
    """Parse an address `hf://`. The revision may also follow the name, as `huggingface_hub` writes it.

    Args:
        text: the address.
        revision: revision that was given apart from the address.

    Raises:
        UserError: it is not such an address, or has two different revisions.
    """
    rest = text.removeprefix(HUB)
    kind, _, below = rest.partition("/")
    rest = below if kind in ("datasets", "models") else rest
    name = r"[\w-][\w.-]*"
    match = re.fullmatch(rf"({name}/{name})(?:@([^@/]+))?(?:/([^@]*?))?/?(?:@([^@]+))?", rest, re.ASCII)
    if not text.startswith(HUB) or kind in OTHER_KINDS or match is None:
        raise UserError(f"{text} is not the address of a repository: {EXPECTED}.")
    repo, path = match[1], match[3] or ""
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise UserError(f"{text} names the path {path!r}: expected one below the repository, without . and ..")
    given = {found for found in (match[2], match[4], revision) if found}
    if len(given) > 1:
        raise UserError(f"{text} has more than one revision, {', '.join(sorted(given))}: give one.")
    return HubAddress(repo, "dataset" if kind == "datasets" else "model", path, next(iter(given), None))


def with_revision(address: HubAddress, revision: str) -> HubAddress:
    """Return the address at another revision."""
    return replace(address, revision=revision)


def parse_minari_id(text: str) -> str:
    """Return the dataset id in an address `minari://`.

    Raises:
        UserError: it is not an id with a version.
    """
    dataset_id = text.removeprefix(MINARI)
    if not re.fullmatch(MINARI_ID, dataset_id, re.ASCII):
        raise UserError(
            f"{text} is not a Minari dataset: expected minari://ID with its version, such as minari://D4RL/pen/human-v2."
        )
    return dataset_id
