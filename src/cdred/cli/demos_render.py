"""Command `cdred demos render`."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cdred.console import progress_bar
from cdred.data.formats.registry import check_output_path
from cdred.errors import UserError
from cdred.task_name import IMAGE_SIZE


@dataclass(frozen=True)
class Render:
    """Replay recorded actions from recorded seeds, and save the demonstrations with the camera images that the
    simulator renders. They can be used for the task with states, with pixels and with both."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder or file in any format that `cdred demos convert` reads."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Output file, named *.npz; must not exist."""
    task: str | None = None
    """Task to replay in, as in `cdred train`; None for the one that the file states."""
    image_size: int = IMAGE_SIZE
    """Height and width of the images in pixels, unless the name of the task states it."""
    imports: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--import",))] = ()
    """Modules or .py files that register the task's environment, as in `cdred train`."""
    num: int | None = None
    """Number of episodes to render, from the first; None for all."""


def render(options: Render) -> None:
    """Render the images of demonstrations with a progress bar, and save them.

    Raises:
        UserError: an episode has no seed, or its replay differs from the recording.
    """
    from cdred.data.demonstrations import read_demos, save_demos
    from cdred.data.rescale import to_task_units
    from cdred.data.validate import validate_demos
    from cdred.demos.render import render_demos
    from cdred.demos.scripted import check_num_demos
    from cdred.envs.imports import import_modules
    from cdred.envs.registry import make, with_observations
    from cdred.task_name import parameters_of, with_obs

    check_output_path(options.out, "npz")
    if options.out.suffix != ".npz":
        raise UserError(f"{options.out}: images are stored in the format npz only: choose a name that ends in .npz.")
    import_modules(options.imports)
    source = str(options.source)
    with progress_bar(f"reading {source}") as on_progress:
        dataset = read_demos(source, None, on_progress)
    task = options.task or dataset.task
    if not task or (options.task is None and ":" in task):
        raise UserError(f"{source}: give the task with --task: the file states none, or one that names a module.")
    if options.num is not None:
        check_num_demos(options.num)
        dataset = dataset.take(options.num)
    named = task if "obs" in parameters_of(task) else with_observations(task, "both", options.image_size)
    with closing(make(with_obs(task, "state"))) as env:
        dataset = to_task_units(dataset, source, env.spec)
        dataset = validate_demos(dataset, source, env.spec, allow_variable_horizon=True, require_actions=True)
    with progress_bar(f"rendering {source}") as on_progress:
        dataset = render_demos(dataset, source, named, on_progress)
    save_demos(dataset, options.out)
