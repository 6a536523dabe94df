"""The image of the Dockerfile: what it installs is enough to serve, and nobody is root."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from asgi_requests import encode_image

ROOT = Path(__file__).parents[2]

SERVE = """
import sys, threading, time, urllib.request
missing = set(sys.argv[2].split(","))
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ImportError(f"{name} is not in the image")
sys.meta_path.insert(0, Block())
from boxwright.cli.main import main
import socket, signal, os
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
def ask():
    address = f"http://127.0.0.1:{port}"
    for _ in range(500):
        try:
            urllib.request.urlopen(address + "/ready")
            break
        except OSError:
            time.sleep(0.02)
    data = open(sys.argv[3], "rb").read()
    for form in ("json", "coco", "image"):
        answer = urllib.request.urlopen(f"{address}/predict?format={form}", data=data)
        print(answer.headers["content-type"], flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask, daemon=True).start()
sys.exit(main(["serve", sys.argv[1], "--port", str(port)]))
"""


def test_the_image_has_what_it_needs(exported: Path, tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    installed = set(re.findall(r'"([a-z-]+)>=', dockerfile))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    needed = {re.match(r"[\w-]+", one)[0] for one in named}
    assert installed - {"onnxruntime"} <= needed
    modules = {"pillow": "PIL", "pyyaml": "yaml"}
    missing = ",".join(sorted(modules.get(one, one).replace("-", "_") for one in needed - installed))
    assert "torch" in missing
    (tmp_path / "image.png").write_bytes(encode_image(30, 40))
    arguments = [str(exported), missing, str(tmp_path / "image.png")]
    done = subprocess.run([sys.executable, "-c", SERVE, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["application/json", "application/json", "image/jpeg"]


def test_nobody_is_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    user = next(index for index, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user].split()[1] not in ("root", "0")
    assert not any(line.startswith(("RUN", "USER")) for line in lines[user + 1 :])
    (entry,) = (json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT"))
    assert entry[:2] == ["boxwright", "serve"]
