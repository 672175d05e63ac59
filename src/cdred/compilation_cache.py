"""Persistent cache of compiled programs."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Cache compiled programs in `$XDG_CACHE_HOME/cdred/xla`, unless JAX is configured to use another folder."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "cdred" / "xla"))
