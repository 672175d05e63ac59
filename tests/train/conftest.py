import pytest
from runs import by_toy, config

import cdred


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a run of `config`; not to be changed."""
    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(config(out), quiet=True)
    return out


@pytest.fixture(scope="session")
def lived(tmp_path_factory):
    """The same by a method that compiles at once: to be compared with runs of `toy`, where any method would do."""
    return by_toy(config(tmp_path_factory.mktemp("lived") / "run"))
