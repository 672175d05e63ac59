"""Export of the policy of a run to a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from cdred.constraints import check_choice
from cdred.envs.callables import EnvFactory, given_env
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.export.layers import policy_layers
from cdred.export.metadata import describe_policy
from cdred.export.numpy_policy import Layer
from cdred.files import check_new_path, check_output_file, disk_errors, new_file
from cdred.run_folder import load_run
from cdred.train.agent import acts_by, select_seed
from cdred.train.setup import make_compiled_fns
from cdred.types import LogFn

ExportFormat = Literal["onnx", "stablehlo", "npz"]
Writer = Callable[[BinaryIO, list[Layer], dict[str, Any]], None]


def export(
    run: str | Path,
    to: ExportFormat,
    out: str | Path | None = None,
    *,
    env: EnvFactory | None = None,
    seed: int | None = None,
    best: bool = False,
    log: LogFn = print,
) -> Path:
    """Export the policy of a run, to act without cdred: raw observations in, actions in the environment's units out.

    It is the policy that was chosen to act at the end of the training run, the trained or the pretrained one, without
    exploration. The planner is not exported: of a run that acts by it, the policy is, and a message says so.

    Args:
        run: the run folder.
        to: format: `onnx`, `stablehlo` (`jax.export`, for CPU and CUDA) or `npz`
            (`cdred.export.numpy_policy.NumpyPolicy`).
        out: a new file, named `*.<format>`; None for `policy-seed<seed>.<format>` in the run folder.
        env: as in `evaluate`.
        seed: one of the run's seeds; the first if None.
        best: as in `evaluate`.
        log: called with messages.

    Returns:
        The path of the file.

    Raises:
        UserError: no such format, the file exists or cannot be written, a package is missing, or as `load`.
    """
    check_choice("--to", to, get_args(ExportFormat))
    writer = _writer(to)
    if out is not None:
        _check_output(Path(out), to)
    with given_env(env):
        loaded = load_run(Path(run), None, best, env)
        spec = get_env_spec(loaded.config.task)
    config = loaded.config
    learner, chosen_seed = select_seed(loaded.learner, config, seed)
    path = Path(run) / f"policy-seed{chosen_seed}.{to}" if out is None else Path(out)
    _check_output(path, to)
    how = acts_by(make_compiled_fns(config, spec).algorithm, learner)
    layers = policy_layers(learner, spec, pretrained=how == "pretrained policy")
    metadata = describe_policy(config, spec, chosen_seed, loaded.steps, how)
    with disk_errors(path.parent), new_file(path) as file:
        writer(file, layers, metadata)
    if how == "planner":
        log(
            "the agent acts by its planner, which is not exported: the file has its policy, which may be worse. "
            "`cdred eval RUN --planner policy` measures it."
        )
    if config.precision.model != "float32":
        log(
            f"the networks were trained with products of {config.precision.model} numbers; the exported policy "
            "computes in float32, so that actions differ by that rounding."
        )
    log(f"{metadata['policy']} of seed {chosen_seed} at step {loaded.steps:,}: {path}")
    return path


def _writer(to: ExportFormat) -> Writer:
    """Return the writer of a format.

    Raises:
        UserError: it needs a package that is missing.
    """
    if to == "onnx":
        try:
            from cdred.export.onnx_file import write_onnx
        except ImportError as error:
            raise UserError(
                f"--to onnx needs a package that is missing ({error}): pip install 'cdred[export]', or --to npz."
            ) from error
        return write_onnx
    if to == "stablehlo":
        from cdred.export.stablehlo_file import write_stablehlo

        return write_stablehlo
    from cdred.export.npz_file import write_npz

    return write_npz


def _check_output(path: Path, to: ExportFormat) -> None:
    if path.suffix != f".{to}":
        raise UserError(f"{path} is not a name of a file of --to {to}: expected one that ends in .{to}.")
    check_output_file(path)
    check_new_path(path)
