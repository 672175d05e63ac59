"""Order of a LeRobotDataset's frames, from the counters in its data files, and their agreement with its metadata.

    episode_index, frame_index   the episode of a row, and the row's time step in it, from 0
    index                        frames counted through the whole dataset: `frame_index` plus a constant per episode

The rows may stand in any order and in any file: files are merged, rewritten and written in parallel. `meta/episodes`
(v3) and `meta/episodes.jsonl` (v2) declare the length of every episode, `meta/info.json` the totals.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdred.data.formats.arrow import check_columns, open_parquet, read_rows, to_numpy
from cdred.data.formats.common import sanitize_text
from cdred.errors import UserError

COUNTERS = ("episode_index", "frame_index", "index")
LENGTH, FIRST, STOP = "length", "dataset_from_index", "dataset_to_index"
FETCH_HINT = "fetch the dataset again, or remove that episode"


class EpisodeFrames(NamedTuple):
    """Episode found in the data files.

    Attributes:
        number: its `episode_index`.
        rows: its rows once all frames are in order.
        first_index: `index` of its first frame.
    """

    number: int
    rows: slice
    first_index: int

    @property
    def num_frames(self) -> int:
        """Number of its frames."""
        return self.rows.stop - self.rows.start


def locate_frames(files: Sequence[Path], spare_rows: int = 0) -> tuple[list[EpisodeFrames], list[np.ndarray]]:
    """Find where each row of the data files belongs when all frames are ordered by episode and frame.

    Args:
        files: the data files.
        spare_rows: rows to leave free after each episode.

    Returns:
        The episodes, sorted by number, and for each file the new position of each of its rows, `[rows]`.

    Raises:
        UserError: a counter is missing or not an integer, the `frame_index` of an episode has gaps or duplicates, or
            `index` contradicts it.
    """
    counters = [_read_counters(file) for file in files]
    sizes = [len(rows) for rows in counters]
    episode, frame, index = np.concatenate([np.empty((0, len(COUNTERS)), np.int64), *counters]).T
    numbers, ordinals, counts = np.unique(episode, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    order = np.lexsort((frame, episode))

    def location(row: int) -> str:
        return f"{files[np.repeat(np.arange(len(files)), sizes)[row]]}, episode {episode[row]}"

    for row, expected in _mismatches(frame, np.arange(len(order)) - np.repeat(starts, counts), order):
        is_duplicate = frame[row] < expected
        problem = (
            f"{frame[row]} occurs more than once" if is_duplicate else f"{expected} is missing before {frame[row]}"
        )
        raise UserError(f"{location(row)}: frame_index {problem}: {FETCH_HINT}.")
    first_index = (index - frame)[order[starts]]
    for row, expected in _mismatches(index, first_index[ordinals][order] + frame[order], order):
        raise UserError(
            f"{location(row)}, frame {frame[row]}: index is {index[row]}, expected {expected}, which is the index of "
            f"the episode's first frame plus frame_index: {FETCH_HINT}."
        )
    starts = starts + spare_rows * np.arange(len(starts))
    episodes = [
        EpisodeFrames(number, slice(start, start + count), first)
        for number, start, count, first in zip(
            numbers.tolist(), starts.tolist(), counts.tolist(), first_index.tolist(), strict=True
        )
    ]
    return episodes, np.split(starts[ordinals] + frame, np.cumsum(sizes)[:-1]) if files else []


def _mismatches(values: np.ndarray, expected: np.ndarray, order: np.ndarray) -> list[tuple[int, int]]:
    """Return the first row in `order` whose value is not the expected one, with that one; empty if there is none.

    Args:
        values: by row.
        expected: in the order of `order`.
        order: rows.
    """
    wrong = np.flatnonzero(values[order] != expected)[:1]
    return list(zip(order[wrong].tolist(), expected[wrong].tolist(), strict=True))


def _read_counters(file: Path) -> np.ndarray:
    """Read the counters of every row, `[rows, 3]`."""
    with open_parquet(file) as table:
        check_columns(table, COUNTERS, file)
        columns = table.read(columns=list(COUNTERS))
        counters = [to_numpy(columns.column(name).combine_chunks(), f"{file}: '{name}'") for name in COUNTERS]
    for name, values in zip(COUNTERS, counters, strict=True):
        if values.dtype.kind not in "iu" or values.size != columns.num_rows or (values < 0).any():
            raise UserError(f"{file}: '{name}' must be one integer per row, 0 or larger: {FETCH_HINT}.")
    return np.stack([values.reshape(-1).astype(np.int64) for values in counters], axis=1)


def read_episode_metadata(path: Path, columns: Sequence[str] = ()) -> dict[int, dict[str, Any]]:
    """Return the metadata of every episode by its number; empty if the dataset has none.

    Args:
        path: the dataset's folder.
        columns: columns to read beside those that locate an episode's frames; required.

    Raises:
        UserError: damaged files, a missing column, or an episode that is listed twice.
    """
    files, lines = sorted(path.glob("meta/episodes/*/*.parquet")), path / "meta/episodes.jsonl"
    rows = [row for file in files for row in read_rows(file, ["episode_index", *columns], (LENGTH, FIRST, STOP))]
    if not files and lines.exists():
        rows = read_json_lines(lines, "episode_index")
    metadata = {row["episode_index"]: row for row in rows}
    if len(metadata) < len(rows):
        raise UserError(
            f"{path}: its episode metadata have {len(rows)} entries for {len(metadata)} episodes, expected one for "
            "each: fetch the dataset again."
        )
    return metadata


def read_json_lines(path: Path, key: str) -> list[dict[str, Any]]:
    """Read one JSON object per line, each with `key`.

    Raises:
        UserError: the file's content is something else.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [{key: row[key]} | row for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not JSON lines as LeRobot writes them ({error!r}).") from error


def check_metadata(
    path: Path, info: dict[str, Any], metadata: dict[int, dict[str, Any]], episodes: Sequence[EpisodeFrames]
) -> None:
    """Check that the metadata, as far as there are any, declare the episodes that are in the data files.

    Raises:
        UserError: the first contradiction: an episode, what its metadata declare, and how many rows it has.
    """
    by_number = {episode.number: episode for episode in episodes}
    for number in sorted({*metadata, *by_number}) if metadata else ():
        if problem := _find_contradiction(metadata.get(number), by_number.get(number)):
            count = by_number[number].num_frames if number in by_number else 0
            raise UserError(
                f"{path}, episode {number}: its metadata {sanitize_text(problem)}, but the data files hold {count} "
                f"rows of it: {FETCH_HINT}."
            )
    totals = {"total_episodes": len(episodes), "total_frames": sum(episode.num_frames for episode in episodes)}
    for key, total in totals.items():
        if info.get(key, total) != total:
            raise UserError(
                f"{path}: meta/info.json declares {key} {sanitize_text(info[key])}, but the data files hold {total}: "
                "fetch the dataset again."
            )


def _find_contradiction(declared: dict[str, Any] | None, episode: EpisodeFrames | None) -> str | None:
    """Describe what an episode's metadata declare where its rows differ; None if they agree."""
    if declared is None:
        return "are missing"
    count = episode.num_frames if episode else 0
    if declared.get(LENGTH, count) != count:
        return f"declare length {declared[LENGTH]}"
    first, stop = declared.get(FIRST), declared.get(STOP)
    if first is None or stop is None:
        return None
    actual = episode.first_index if episode else first
    if (first, stop) != (actual, actual + count):
        return f"declare {FIRST} {first} and {STOP} {stop}, expected {actual} and {actual + count}"
    return None
