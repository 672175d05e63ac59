"""Every test runs with shapes checked, and with silent broadcasting or dtype promotion as errors."""

from pathlib import Path

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

with install_import_hook("cdred", "beartype.beartype"):
    import cdred  # noqa: F401  (before any test imports a part of it)

