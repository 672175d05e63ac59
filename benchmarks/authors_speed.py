"""Time the authors' code (PyTorch): one update and one plan, at the sizes of its own config.yaml.

    python benchmarks/authors_speed.py CODE --json authors_speed.json

CODE is a checkout of the authors' repository, which is no part of this one. Observations, actions and episode length
are those of `cdred bench`. Float32 products are float32, and then TF32.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import yaml
from json_output import write_json

PACKAGE = "cdred_wm"
OBS_DIM, ACTION_DIM, EPISODE_LENGTH = 39, 4, 100
# By the names of torch.set_float32_matmul_precision.
PRECISIONS = {"highest": "float32", "high": "tf32"}


def main() -> None:
    """Measure and write milliseconds per precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("code", type=Path, help="checkout of the authors' repository")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    rows = measure(options.code, options.repeats)
    print(rows)
    write_json(options.json, rows)


def measure(code: Path, repeats: int) -> dict[str, Any]:
    """Return `update_ms` and `plan_ms` per precision, medians over `repeats`, with commit and version of PyTorch."""
    agent, cfg, torch = load_agent(code)
    device = agent.device
    expert, behavioural = (RandomBatch(torch, device, cfg) for _ in range(2))
    obs, rows = torch.zeros(OBS_DIM), {}
    for name, precision in PRECISIONS.items():
        torch.set_float32_matmul_precision(name)
        synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        # The first plan of an episode, so that the second has one to start from.
        agent.act(obs, t0=True)
        rows[precision] = {
            "update_ms": median_ms(lambda: agent.update_rnd(behavioural, expert), repeats, synchronize),
            "plan_ms": median_ms(lambda: agent.act(obs), repeats, synchronize),
        }
    return {"authors_commit": commit(code), "torch": torch.__version__, "device": str(device), "rows": rows}


def load_agent(code: Path) -> tuple[Any, SimpleNamespace, Any]:
    """Return the authors' agent with planning on, its settings, and torch."""
    sys.path.insert(0, str(code / PACKAGE))
    # Imported by their module, and not used by what is measured.
    sys.modules.setdefault("wandb", ModuleType("wandb"))
    import torch
    from tdmpc2 import TDMPC2  # pyright: ignore[reportMissingImports]

    settings = yaml.safe_load((code / PACKAGE / "config.yaml").read_text())
    settings |= {"mpc": True, "multitask": False, "task_dim": 0, "obs_shape": {"state": (OBS_DIM,)}}
    settings |= {"action_dim": ACTION_DIM, "episode_length": EPISODE_LENGTH}
    settings["bin_size"] = (settings["vmax"] - settings["vmin"]) / (settings["num_bins"] - 1)
    # YAML 1.1 reads 1e-4 as a string.
    settings = {name: number(value) for name, value in settings.items()}
    cfg = SimpleNamespace(**settings)
    return TDMPC2(cfg), cfg, torch


def number(value: Any) -> Any:
    """Return the number that a string contains; anything else unchanged."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class RandomBatch:
    """Replay buffer that returns the same random batch every time.

    Args:
        torch: the module.
        device: device of the batch.
        cfg: settings with batch size and horizon.
    """

    def __init__(self, torch: Any, device: Any, cfg: SimpleNamespace):
        shape = (cfg.horizon, cfg.batch_size)
        self._obs = torch.randn(cfg.horizon + 1, cfg.batch_size, OBS_DIM, device=device)
        self._action = 2 * torch.rand(*shape, ACTION_DIM, device=device) - 1
        self._reward = torch.zeros(*shape, 1, device=device)

    def sample(self) -> tuple[Any, ...]:
        """Return observations, actions, rewards, and no task."""
        return self._obs, self._action, self._reward, None


def median_ms(call: Callable[[], Any], repeats: int, synchronize: Callable[[], Any]) -> float:
    """Measure the median milliseconds of a call over `repeats` calls after three others."""
    seconds = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        call()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[3:]) * 1e3)


def commit(code: Path) -> str | None:
    """Return the commit of the checkout; None outside git."""
    command = ["git", "-C", str(code), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 and (code / ".git").exists() else None


if __name__ == "__main__":
    main()
