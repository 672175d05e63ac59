"""Check of JAX's device, of the precision of its matrix products, and of the memory that a run needs on it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cdred.doctor.checks import Check, ProbeError, run_probe
from cdred.files import format_mib
from cdred.text import plural
from cdred.types import EnvSpec, PresetName

MODULE = "cdred.doctor.device_probe"
# Starting JAX on a GPU and compiling two products takes seconds; a driver that does not answer, forever.
SECONDS = 120
NVIDIA_DRIVER = Path("/dev/nvidiactl")


def check_device(preset: PresetName, spec: EnvSpec | None, *, driver: Path = NVIDIA_DRIVER) -> list[Check]:
    """Check device, precision, and memory of a preset.

    Args:
        preset: name of the preset.
        spec: task of that run; None if it is unknown.
        driver: exists where an NVIDIA GPU can be used.
    """
    task = json.dumps(asdict(spec)) if spec else ""
    try:
        found = run_probe(MODULE, (preset, task), seconds=SECONDS)
    except ProbeError as error:
        return [Check("device", "problem", f"JAX cannot be used: {error}")]
    checks = [_device(found, driver.exists()), _precision(found["precision"])]
    return [*checks, _memory(preset, spec, found)]


def _device(found: dict[str, Any], has_driver: bool) -> Check:
    text = f"{plural(len(found['devices']), 'device')}: {', '.join(dict.fromkeys(found['devices']))}"
    if found["backend"] == "cpu" and has_driver:
        return Check("device", "missing", f"{text}; JAX does not use the NVIDIA GPU", "pip install 'cdred[cuda]'")
    return Check("device", "ok", text)


def _precision(measured: dict[str, str]) -> Check:
    text = (
        f"matrix products of cdred: {measured['cdred']} (change with --precision.model and --precision.reward); "
        f"JAX's default on this device: {measured['jax']}"
    )
    return Check("precision", "ok" if measured["cdred"] == "float32" else "problem", text)


def _memory(preset: PresetName, spec: EnvSpec | None, found: dict[str, Any]) -> Check:
    name, memory = f"memory, preset {preset}", found["memory"]
    if spec is None or memory is None:
        return Check(name, "missing", "unknown, because the task cannot be made here")
    parts = {key: size for key, size in memory.items() if size}
    total, limit = sum(parts.values()), found["memory_limit"]
    listed = ", ".join(f"{key.replace('_', ' ')} {format_mib(size)}" for key, size in parts.items())
    sizes = f"{spec.task}: {spec.obs_shape[0]} observations, {plural(spec.action_dim, 'action')}"
    text = f"{format_mib(total)} for one seed of {sizes} ({listed}), without the arrays of an update"
    images, host = memory["agent_images"], found["host_memory"]
    if images:
        text += f"; with --replay-images host the agent images are in host memory, which has {format_mib(host)}"
    if limit is None:
        return Check(name, "ok", text)
    text = f"{text}; the device has {format_mib(limit)}"
    if total < limit:
        return Check(name, "ok", text)
    moved = total - images < limit and 0 < images < host
    return Check(name, "problem", text, "add --replay-images host" if moved else "add --buffer-size N with a smaller N")
