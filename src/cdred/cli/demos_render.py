"""Command `cdred demos render`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from cdred.console import progress_bar
from cdred.data.formats.registry import check_output_path
from cdred.errors import UserError
from cdred.task_name import IMAGE_SIZE, OBS, with_parameters


@dataclass(frozen=True)
class Render:
    """Replay recorded actions from recorded seeds, and save the demonstrations with the camera images that the
    simulator renders. They can be used for the task with states, with pixels and with both."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder or file in any format that `cdred demos convert` reads."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Output folder or .npz file; must not exist."""
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
    from cdred.envs.registry import get_env_spec
    from cdred.task_name import has_images, with_obs

    check_output_path(options.out)
    import_modules(options.imports)
    source = str(options.source)
    with progress_bar(f"reading {source}") as on_progress:
        dataset = read_demos(source, None, on_progress, images=None)
    task = options.task or dataset.task
    if not task or (options.task is None and ":" in task):
        raise UserError(f"{source}: give the task with --task: the file states none, or one that names a module.")
    if options.num is not None:
        check_num_demos(options.num)
        dataset = dataset.take(options.num)
    named = task if has_images(task) else with_obs(task, "both", options.image_size)
    spec = replace(get_env_spec(with_parameters(named, {OBS: "both"})), image_size=None)
    dataset = to_task_units(dataset, source, spec)
    dataset = validate_demos(dataset, source, spec, allow_variable_horizon=True, require_actions=True)
    with progress_bar(f"rendering {source}") as on_progress:
        dataset = render_demos(dataset, source, named, on_progress)
    save_demos(dataset, options.out)
