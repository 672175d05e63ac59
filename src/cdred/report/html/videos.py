"""Videos of a run: embedded into the page up to a size, linked beyond it."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree.ElementTree import Element

from cdred.files import format_mib
from cdred.report.html.elements import element

MAX_BYTES = 16 * 2**20
"""Bytes of all videos that are embedded into one page."""
TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}


class Videos:
    """Budget of the videos of a page, spent in the order of the runs.

    Args:
        page: the file of the page, from which links are relative.
        budget: bytes that may be embedded.
    """

    def __init__(self, page: Path, budget: int = MAX_BYTES):
        self._page, self._left = page, budget

    def figures(self, folder: Path) -> list[Element]:
        """Return a figure per video of a run folder."""
        return [self._figure(path) for path in find_videos(folder)]

    def _figure(self, path: Path) -> Element:
        size = path.stat().st_size
        target = quote(Path(os.path.relpath(path.resolve(), self._page.resolve().parent)).as_posix())
        link = element("a", path.name, href=f"./{target}")
        if size > self._left:
            note = (
                f" ({format_mib(size)}) is not in this page, which embeds at most {format_mib(MAX_BYTES)} of videos: "
            )
            return element("figure", element("p", element("strong", path.name), note, link), class_="video linked")
        self._left -= size
        kind = TYPES[path.suffix.lower()]
        source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        name = f"Video {path.stem}"
        if kind.startswith("image/"):
            player = element("img", src=source, alt=name)
        else:
            player = element("video", src=source, controls="", loop="", muted="", playsinline="", aria_label=name)
        caption = element("figcaption", element("strong", path.stem), element("span", "the file: ", link))
        return element("figure", caption, player, class_="video")


def find_videos(folder: Path) -> Sequence[Path]:
    """Return the videos of a run folder, sorted; not those that links lead to, outside of the folder."""
    root = folder.resolve()
    paths = sorted(path for path in (folder / "videos").glob("*") if path.suffix.lower() in TYPES)
    return [path for path in paths if path.is_file() and path.resolve().is_relative_to(root)]
