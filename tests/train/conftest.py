import pytest
from runs import config

import cdred


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a run of `config`; not to be changed."""
    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(config(out), quiet=True)
    return out
