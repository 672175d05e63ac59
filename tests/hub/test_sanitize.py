"""Paths of this machine are removed from texts, and nothing else is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import cdred
from cdred.hub.sanitize import Sanitizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane/data/x.npz", "x.npz"),
        ("rescaled from /home/jane/data/x.npz, twice", "rescaled from x.npz, twice"),
        ("~/data/x.npz", "x.npz"),
        ("in /home/jane doe/runs/x it failed", "in runs/x it failed"),
        ("in /home/jane doe.", "in (path)."),
        ("https://example.org/a/b, metaworld/window-open, 3 / 4, steps/s", None),
        ("gym/my.module:Task-v0 and a/b/c", None),
    ],
)
def test_absolute_paths_become_names(text, expected):
    sanitizer = Sanitizer([Path("/home/jane doe"), Path("/")])
    assert sanitizer.text(text) == (expected or text)
    assert bool(sanitizer.replaced) == (sanitizer.text(text) != text)


def test_texts_in_json_are_sanitized_and_other_json_is_unchanged():
    sanitizer = Sanitizer([])
    line = '{"a":1.50, "b": [NaN, null, "x"]}\n'
    assert sanitizer.json_text(line) == line
    tree = {"a": ["/x/y/z.npz", {"b": "/x/y/w"}], "c": 2}
    assert json.loads(sanitizer.json_text(json.dumps(tree))) == {"a": ["z.npz", {"b": "w"}], "c": 2}


@pytest.mark.parametrize(
    ("demos", "expected"),
    [
        ("10", "10"),
        ("hf://datasets/me/d/x.npz", "hf://datasets/me/d/x.npz"),
        ("/home/jane/x.npz", "x.npz"),
        ("../jane/x.npz", "x.npz"),
        ("~/x.npz", "x.npz"),
        ("demos/x.npz", "demos/x.npz"),
    ],
)
def test_settings_keep_no_path_out_of_the_working_directory(demos, expected):
    config = replace(cdred.preset("debug"), demos=demos, imports=("mine.module", "/home/jane/task.py"))
    sanitized = Sanitizer([]).settings(config)
    assert (sanitized.demos, sanitized.imports) == (expected, ("mine.module", "task.py"))
    assert replace(sanitized, demos=demos, imports=config.imports) == config
