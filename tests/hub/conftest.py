"""A hub on this machine, which `huggingface_hub` uses in place of the real one."""

import pytest


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Server of `HubServer`, with a token and an empty cache at `tmp_path/cache`."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra `hub`")
    from huggingface_hub import constants, hf_api

    from hub_server import HubServer

    assert huggingface_hub.upload_folder.__self__ is hf_api.api
    server = HubServer()
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.close()
