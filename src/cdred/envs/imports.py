"""Modules of users that register their environments, such as `gymnasium.register(...)`.

An import changes the whole process, as Gymnasium's registry does. The modules imported here are remembered, so that
the processes that step environments (`--vectorization process`) import them as well.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from cdred.errors import UserError

_imported: list[str] = []
# Names of the modules being imported, the innermost one last.
_importing: list[str] = []


def resolve_import(name: str) -> str:
    """Return a module's name unchanged, and the path of a file absolute: a run may be resumed from another folder."""
    return os.path.abspath(Path(name).expanduser()) if _is_file(name) else name


def import_modules(names: Iterable[str]) -> None:
    """Import modules, each once per process.

    Args:
        names: names of modules on the import path, or paths of `.py` files. A file is imported under its name without
            `.py`, and may import what is in its folder.

    Raises:
        UserError: a module or file does not exist, raises an exception, or has the name of another module.
    """
    for name in map(resolve_import, names):
        if name in _imported:
            continue
        _importing.append(name)
        try:
            _import_file(Path(name)) if _is_file(name) else importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(_reason(name, error)) from error
        finally:
            _importing.pop()
        _imported.append(name)


def refuse_during_import(what: str) -> None:
    """Refuse to run `what` on behalf of a module that is imported for its environments, which would begin it again.

    Raises:
        UserError: a module is being imported.
    """
    if _importing:
        raise UserError(
            f"{_importing[-1]} is imported for its environments, and calls {what} itself: put that call under "
            '`if __name__ == "__main__":`.'
        )


def imported() -> tuple[str, ...]:
    """Return the names and absolute paths of the modules imported so far, in their order."""
    return tuple(_imported)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"--import: there is no file {path}. If it has been moved, give its new path to resume the run; "
            "`cdred eval` and `cdred.load` read the path in the run's config.yaml (imports)."
        )
    running = sys.modules["__main__"]
    if path.stem not in sys.modules and _is_file_of(running, path):
        # The script that runs has defined its environments; executed again it would run again.
        sys.modules[path.stem] = running
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--import: {path} is not a Python file: its name should end in .py.")
    if path.stem in sys.modules or path.stem in sys.stdlib_module_names:
        other = getattr(sys.modules.get(path.stem), "__file__", None)
        if _is_file_of(sys.modules.get(path.stem), path):
            return
        raise UserError(f"--import: {path} has the name of another module ({other or 'built in'}): rename the file.")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    # Last, so that the files in the folder hide no installed package.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _is_file_of(module: object, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and os.path.realpath(file) == os.path.realpath(path)


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        return (
            f"--import: there is no module {name} on the import path: give the path of its file, such as {name}.py, "
            "or put its folder into PYTHONPATH."
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"--import {name} failed: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})."
