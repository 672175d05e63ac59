import numpy as np
import pytest

from cdred.data.formats.common import drop_last_action, import_optional, with_progress
from cdred.errors import UserError


@pytest.mark.parametrize(
    ("success", "expected"),
    [
        ([False, True, False], [False, True]),
        ([False, False, True], [False, True]),
        ([True, False, False], [True, False]),
        ([True], []),
        (None, None),
    ],
)
def test_drop_last_action_keeps_its_success(make_trajectory, success, expected):
    steps = 3 if success is None else len(success)
    flags = None if success is None else np.array(success)
    shorter = drop_last_action(make_trajectory(steps, success=flags, terminated=True, truncated=False))
    assert (None if shorter.success is None else shorter.success.tolist()) == expected
    assert (len(shorter.action), len(shorter.reward), len(shorter.obs)) == (steps - 1, steps - 1, steps + 1)
    assert (shorter.terminated, shorter.truncated) == (False, True)


def test_progress_is_reported_after_each_item():
    calls = []
    assert list(with_progress("ab", lambda *numbers: calls.append(numbers))) == ["a", "b"]
    assert calls == [(1, 2), (2, 2)]
    assert list(with_progress("ab", None)) == ["a", "b"]


def test_missing_package_names_its_extra(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^reading x needs nowhere, .* pip install 'cdred\[formats\]'"):
        import_optional("nowhere.inside", "reading x")
    (tmp_path / "halfway.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        import_optional("halfway", "reading x")
