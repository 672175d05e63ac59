"""Removal of what names this machine or its user from files of a run before they are shared."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdred.config import RunConfig
from cdred.hub.address import is_remote

# An absolute path of at least two parts in running text, but not the end of a URL or of a relative path.
PATH = re.compile(r"(?<![\w:/.~-])(?:~|/[^\s/'\"]+)(?:/[^\s/'\"]+)+")


class Sanitizer:
    """Replaces absolute paths by their last part.

    Args:
        private: folders whose paths name the machine or its user, such as the home directory; they may have spaces.

    Attributes:
        replaced: the paths that were replaced.
    """

    def __init__(self, private: Iterable[Path]):
        prefixes = sorted({str(folder) for folder in private if len(folder.parts) > 1}, key=len, reverse=True)
        self._private = [re.compile(rf"(?<![\w./-]){re.escape(prefix)}(?:/|(?!\w|-|\.\w))") for prefix in prefixes]
        self.replaced: list[str] = []

    def text(self, text: str) -> str:
        """Return text without absolute paths."""
        for private in self._private:
            text = private.sub(self._drop, text)
        return PATH.sub(lambda match: self._shorten(match[0]), text)

    def tree(self, tree: Any) -> Any:
        """Return JSON without absolute paths in its texts."""
        if isinstance(tree, dict):
            return {key: self.tree(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self.tree(item) for item in tree]
        return self.text(tree) if isinstance(tree, str) else tree

    def json_text(self, text: str) -> str:
        """Return a JSON document without absolute paths, unchanged if it has none."""
        tree = json.loads(text)
        sanitized = self.tree(tree)
        return text if sanitized == tree else json.dumps(sanitized) + "\n"

    def settings(self, config: RunConfig) -> RunConfig:
        """Return settings whose paths are relative ones below the folder of the command, or names of files."""
        demos = config.demos if is_remote(config.demos) else self._portable(config.demos)
        imports, init_from = tuple(map(self._portable, config.imports)), self._portable(config.init_from)
        return replace(config, demos=demos, imports=imports, init_from=init_from)

    def _portable(self, name: str) -> str:
        path = Path(name)
        outside = path.is_absolute() or name.startswith("~") or ".." in path.parts
        return self._shorten(name) if outside else name

    def _drop(self, match: re.Match[str]) -> str:
        self.replaced.append(match[0])
        return "" if match[0].endswith("/") else "(path)"

    def _shorten(self, path: str) -> str:
        self.replaced.append(path)
        return Path(path).name
