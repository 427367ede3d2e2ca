"""A small Hugging Face hub on this machine, which serves data sets or models out of memory, as plain HTTP."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def serving_data_sets(repositories):
    """Serve `{"OWNER/NAME": {"REVISION": {"FILE": bytes}}}`; gives the address and the list of paths asked for."""
    return _serving(repositories, ("/api/datasets/", "/datasets/"))


def serving_models(repositories, *, gated=()):
    """The same of models. gated: names whose files nobody may have."""
    return _serving(repositories, ("/api/models/", "/"), gated)


@contextmanager
def _serving(repositories, prefixes, gated=()):
    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repositories, asked, prefixes, gated))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(repositories, asked, prefixes, gated):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(with_body=True)

        def do_HEAD(self):
            self._answer(with_body=False)

        def _answer(self, *, with_body):
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            for name, revisions in repositories.items():
                for start, answer in zip(prefixes, (self._about, self._file), strict=True):
                    prefix = start + name
                    if path == prefix or path.startswith(f"{prefix}/"):
                        return answer(name, revisions, path.removeprefix(prefix).strip("/"), with_body=with_body)
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)

        def _about(self, name, revisions, rest, *, with_body):
            """The description of a revision, or its tree."""
            is_tree = rest.startswith("tree/")
            revision = rest.partition("/")[2] if rest.startswith(("tree/", "revision/")) else "main"
            known = {name: (commit_of(r), f) for r, f in revisions.items() for name in (r, commit_of(r))}
            base = next((r for r in known if revision == r or revision.startswith(f"{r}/")), None)
            if base is None:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body=with_body)
            sha, files = known[base]
            below = revision.removeprefix(base).strip("/")
            if is_tree:
                files = {f: b for f, b in files.items() if not below or f.startswith(f"{below}/")}
                if not files:
                    return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
                body = [{"type": "file", "path": f, "size": len(b), "oid": _sha(b)} for f, b in files.items()]
            else:
                siblings = [{"rfilename": file} for file in files]
                body = {"id": name, "sha": sha, "private": False, "gated": False, "tags": [], "siblings": siblings}
            return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"}, with_body=with_body)

        def _file(self, name, revisions, rest, *, with_body):
            """`resolve/REVISION/FILE`; the revision may have a slash in it."""
            if name in gated:
                return self._send(403, b"", {"X-Error-Code": "GatedRepo"}, with_body=with_body)
            rest = rest.removeprefix("resolve/")
            known = {**revisions, **{commit_of(r): f for r, f in revisions.items()}}
            for revision in sorted(known, key=len, reverse=True):
                file = rest.removeprefix(f"{revision}/")
                if file != rest and file in known[revision]:
                    body = known[revision][file]
                    commit = revision if revision not in revisions else commit_of(revision)
                    headers = {"ETag": f'"{_sha(body)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
                    return self._send(200, body, headers, with_body=with_body)
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)

        def _send(self, status, body, headers, *, with_body):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *arguments):
            """Nothing on the screen of a test."""

    return Handler


def commit_of(revision):
    """The commit that a revision of a repository stands for."""
    return hashlib.sha1(revision.encode()).hexdigest()


def _sha(body):
    return hashlib.sha1(body).hexdigest()


def lines(*rows):
    """Rows as a gzipped JSON Lines file."""
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def with_script(name, **files):
    """A repository as the originals' are: data files, a page, and a loading script, which must not be run."""
    script = b"raise SystemExit('a loading script was run')"
    named = {f"{stem}.jsonl.gz": body for stem, body in files.items()}
    return {"main": {"README.md": b"# A data set", f"{name.partition('/')[2]}.py": script, **named}}


def run_with_hub(code, *, folder, hub=None):
    """Run Python with a hub of ours, or without any. `datasets` reads its settings once, when it is imported."""
    settings = {"HF_ENDPOINT": hub or "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0" if hub else "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | settings | {"HF_HOME": str(folder / "cache"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
