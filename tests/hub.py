"""A stand-in for the Hugging Face hub on this machine: what huggingface_hub asks to send and fetch.

It keeps repositories in memory, files in commits, takes large files by the LFS protocol, and asks
for a token to write. Every request is noted, so that a test can see that nothing was sent.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


class Hub:
    """Attributes:
    repositories: ``{"user/name": [(commit, {path: bytes}), …]}``, oldest commit first.
    requests: ``"METHOD path"`` of every request, oldest first.
    """

    def __init__(self):
        self.repositories, self.objects, self.requests, self.tags = {}, {}, [], {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Handler", (_Handler,), {}))
        self._server.RequestHandlerClass.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, repository, files):
        """Add a commit with these files changed; gives its name."""
        commits = self.repositories.setdefault(repository, [])
        tree = {**(commits[-1][1] if commits else {}), **files}
        name = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits.append((name, tree))
        return name

    def find(self, repository, revision):
        """Commit and files of a revision; None where there is none."""
        commits = self.repositories[repository]
        wanted = self.tags.get((repository, revision), revision)
        for name, tree in reversed(commits):
            if wanted in ("main", name):
                return name, tree
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def begin(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return path

    def do_HEAD(self):
        self.resolve(self.begin())

    def do_GET(self):
        self.resolve(self.begin())

    def resolve(self, path):
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match or match[1] not in self.hub.repositories:
            return self.answer(404, X_Error_Code="RepoNotFound")
        found = self.hub.find(match[1], match[2])
        if found is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        commit, tree = found
        if match[3] not in tree:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        data = tree[match[3]]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return self.answer(200, data, ETag=etag, X_Repo_Commit=commit)

    def do_PUT(self):
        oid = self.begin().removeprefix("/lfs/")
        if hashlib.sha256(self.sent).hexdigest() != oid:
            return self.answer(400)
        self.hub.objects[oid] = self.sent
        return self.answer(200)

    def do_POST(self):
        path = self.begin()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            wanted = json.loads(self.sent)
            name = f"{wanted['organization']}/{wanted['name']}"
            if wanted["organization"] != "user":
                return self.answer(403, {"error": "You may not write there."})
            status = 409 if name in self.hub.repositories else 200
            self.hub.repositories.setdefault(name, [])
            return self.answer(status, {"url": f"{self.hub.url}/{name}"})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}"}}}
                for entry in json.loads(self.sent)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        if not match or match[1] not in self.hub.repositories:
            return self.answer(404, X_Error_Code="RepoNotFound")
        return getattr(self, match[2])(match[1])

    def preupload(self, _):
        return self.answer(
            200,
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(self.sent)["files"]
                ]
            },
        )

    def commit(self, repository):
        files = {}
        for line in self.sent.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.hub.objects[entry["value"]["oid"]]
        name = self.hub.commit(repository, files)
        url = f"{self.hub.url}/{repository}/commit/{name}"
        return self.answer(200, {"commitUrl": url, "commitOid": name})
