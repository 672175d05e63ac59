"""A server with the part of the Hugging Face hub's interface that pushing and pulling use, on this machine."""

import base64
import hashlib
import json
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit


class HubServer:
    """Repositories in memory: files by commit, commits by branch. A commit is the hash of its files.

    Attributes:
        url: address of the server.
        repos: branches, `{branch: {path: content}}`, by `models/owner/name` or `datasets/owner/name`.
        commits: files by commit.
        created: body of every request that creates a repository.
        refused: status and error code of every answer, in place of the real one, if set.
    """

    def __init__(self):
        self.repos, self.commits, self.created, self.refused = {}, {}, [], None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def _handle(self):
                path, length = unquote(urlsplit(self.path).path), int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                status, content, headers = hub.answer(path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = _handle

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo, files, branch="main"):
        """Set the files of a branch and return the commit."""
        self.repos.setdefault(repo, {})[branch] = files
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[digest] = files
        return digest

    def answer(self, path, body):
        """Return status, content and headers of the answer to a request."""
        if self.refused:
            status, code = self.refused
            return status, b"", {"X-Error-Code": code}
        if path == "/api/repos/create":
            self.created.append(request := json.loads(body))
            repo = f"{request.get('type', 'model')}s/{request['organization']}/{request['name']}"
            if repo not in self.repos:
                self.commit(repo, {})
            return _json({"url": f"{self.url}/{repo.removeprefix('models/')}"})
        if path.count("/") == 2:  # not of a repository: a check of the model card's front matter, a telemetry request
            return _json({"errors": [], "warnings": []})
        parts = path.removeprefix("/api").strip("/").split("/")
        parts = parts if parts[0] in ("models", "datasets") else ["models", *parts]
        repo, verb, (revision, *below) = "/".join(parts[:3]), *parts[3:4], parts[4:]
        branches = self.repos.get(repo)
        if branches is None:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        if verb == "branch":
            return _json(self.commit(repo, branches["main"], revision))
        files = self.commits.get(revision, branches.get(revision))
        if files is None:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        commit = self.commit(repo, files, revision) if revision in branches else revision
        if verb == "revision":
            return _json({"id": repo.partition("/")[2], "sha": commit, "siblings": [], "tags": []})
        if verb == "tree":
            return _json([{"type": "file", "path": k, "size": len(v), "oid": _oid(v)} for k, v in files.items()])
        if verb == "resolve":
            content = files["/".join(below)]
            return 200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit}
        if verb == "preupload":
            sent = [file["path"] for file in json.loads(body)["files"]]
            return _json({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in sent]})
        files = dict(files)
        for operation in map(json.loads, body.splitlines()):
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                files = {name: content for name, content in files.items() if not fnmatch(name, value["path"])}
        commit = self.commit(repo, files, revision)
        return _json({"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit})


def _oid(content):
    return hashlib.sha1(content).hexdigest()


def _json(content):
    return 200, json.dumps(content).encode(), {"Content-Type": "application/json"}
