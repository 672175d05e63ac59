"""The Python of docs/deployment.md, executed as it stands in the page."""

from pathlib import Path

import numpy as np
import pytest

from cdred.envs.registry import get_env_spec
from doc_pages import code_blocks
from policies import file_content, random_policy

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def test_snippets_act_as_the_agent(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the extra `export`")
    policy = random_policy(get_env_spec("probe/point"), algo="bc")
    for to in ("onnx", "npz", "stablehlo"):
        (tmp_path / f"policy.{to}").write_bytes(file_content(policy, to))
    monkeypatch.chdir(tmp_path)
    namespace, expected = {}, policy.agent.act(np.zeros((1, 4), np.float32))
    blocks = list(code_blocks(PAGE, "python"))
    assert len(blocks) == 3
    for block in blocks:
        exec(block, namespace)
        np.testing.assert_allclose(namespace["action"], expected, atol=1e-5)
    assert namespace["high"] == namespace["metadata"]["action_high"] == [1.0, 1.0]
