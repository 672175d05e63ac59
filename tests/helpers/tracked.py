"""Trackers for tests, and readers of what the real ones have stored."""

import json
import math
import struct
import threading

from cdred.loggers.metrics import read_lines
from runs import TIMES

# Metrics of kind `checkpoint` depend on where a run was interrupted.
SKIPPED_KINDS = {"checkpoint", "tracker"}


class Recorder:
    """Tracker that keeps what it gets, `log` as (step, rows), and raises in one of its methods on request."""

    def __init__(self, fails=None):
        self.fails = fails
        self.runs, self.reports, self.results, self.threads = [], [], [], set()

    def start(self, run):
        self._called("start")
        self.runs.append(run)
        return f"recorder: {run.name}"

    def log(self, step, rows):
        self._called("log")
        self.reports.append((step, rows))

    def finish(self, result):
        self._called("finish")
        self.results.append(result)

    def curves(self):
        """Return the values as (row, metric) -> [(step, value), ...]."""
        curves = {}
        for step, rows in self.reports:
            for row, values in rows.items():
                for name, value in values.items():
                    curves.setdefault((row, name), []).append((step, value))
        return curves

    def _called(self, method):
        self.threads.add(threading.current_thread().name)
        if self.fails == method:
            raise ConnectionError(f"no network in {method}")


class Hanging(Recorder):
    """Tracker that waits in `log` until the test is over."""

    def __init__(self):
        super().__init__()
        self.released = threading.Event()

    def log(self, step, rows):
        del step, rows
        self.released.wait(60)


def expected_curves(folder, seeds=(0, 1)):
    """Return the curves of a run's metrics.jsonl, as `Recorder.curves`, without times and checkpoints."""
    curves = {}
    for line in read_lines(folder / "metrics.jsonl"):
        step, kind = line.pop("step"), line.pop("kind")
        if kind in SKIPPED_KINDS:
            continue
        for key, value in line.items():
            if key in TIMES or value is None:
                continue
            per_seed = isinstance(value, list)
            values = {f"seed-{seed}": number for seed, number in zip(seeds, value, strict=True)} if per_seed else {}
            values["mean"] = sum(value) / len(value) if per_seed else value
            for row, number in values.items():
                curves.setdefault((row, f"{kind}/{key}"), []).append((step, number))
    return curves


def without_times(curves):
    """Return curves without times and checkpoints."""
    parts = {key: key[1].split("/") for key in curves}
    return {
        key: points
        for key, points in curves.items()
        if parts[key][0] not in SKIPPED_KINDS and parts[key][-1] not in TIMES
    }


def assert_same_curves(found, expected):
    """Compare curves: the same metrics at the same steps, and values up to single precision."""
    assert found.keys() == expected.keys()
    for key, points in expected.items():
        assert [step for step, _ in found[key]] == [step for step, _ in points], key
        for (_, value), (_, other) in zip(found[key], points, strict=True):
            assert math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-7), (key, value, other)


def tensorboard_curves(folder):
    """Read all event files under a folder, as TensorBoard does: a restart hides the steps from its own one on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    curves = {}
    for directory in (path for path in folder.iterdir() if path.is_dir()):
        points = {}
        for file in sorted(directory.glob("*tfevents*")):
            for record in records(file):
                event = Event.FromString(record)
                if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                    points = {name: [p for p in values if p[0] < event.step] for name, values in points.items()}
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        points.setdefault(value.tag, []).append((event.step, value.simple_value))
        curves |= {(directory.name, name): values for name, values in points.items() if values}
    return curves


def records(file):
    """Yield the records of a TFRecord file: length, checksum, content, checksum."""
    data, position = file.read_bytes(), 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        yield data[position + 12 : position + 12 + length]
        position += 16 + length


def wandb_curves(folder):
    """Read the offline runs of wandb in a run folder, and the ids of their runs."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    # Its process may still be writing what a finished run has logged.
    wandb.teardown()
    curves, ids = {}, set()
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in wandb_records(file):
            record = Record.FromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if "/" in name:
                    curves.setdefault(tuple(name.split("/", 1)), []).append((row["step"], float(value)))
    return curves, ids


def wandb_records(file):
    """Yield the records of a .wandb file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    data, position, record = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, part = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        # A whole record, or the last part of one.
        if part in (1, 4):
            yield record
            record = b""
