"""``boxwright serve`` as a process: its address, its end, its workers, without torch."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_requests import encode_image
from boxwright.cli.main import main
from serving_child import ServingProcess

IMAGE = encode_image(30, 40)


@pytest.fixture
def serving(exported: Path) -> Iterator[Any]:
    started: list[ServingProcess] = []

    def start(*arguments: str, **options: Any) -> ServingProcess:
        started.append(ServingProcess(exported, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_exported_file_is_served_without_torch(serving: Any) -> None:
    service = serving()
    status, body = service.ask("/predict", IMAGE)
    assert (status, len(json.loads(body)["images"][0]["detections"])) == (200, 2)
    status, drawing = service.ask("/predict?format=image", IMAGE)
    assert (status, drawing[:2]) == (200, b"\xff\xd8")
    if sys.platform == "linux":
        assert "libtorch" not in Path(f"/proc/{service.process.pid}/maps").read_text()
    # A page whose name leads here, of a stranger.
    assert service.ask("/predict", IMAGE, {"Host": "evil.example"})[0] == 400
    assert service.ask("/health", headers={"Host": f"localhost:{service.port}"})[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_finish_what_was_taken(serving: Any, number: int) -> None:
    """A request whose body arrives after the signal is answered, and then the process ends by itself."""
    service = serving()
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
        connection.sendall(head.encode() + IMAGE[:50])
        time.sleep(0.3)
        ended: list[int] = []
        ending = threading.Thread(target=lambda: ended.append(service.end(number)))
        ending.start()
        time.sleep(0.5)
        assert not ended
        with pytest.raises(ConnectionRefusedError):  # nobody else is taken
            service.ask("/health")
        connection.sendall(IMAGE[50:])
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"category_name":"thing"' in answer
    ending.join(20)
    assert ended == [0]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_count_together_and_are_replaced(serving: Any) -> None:
    service = serving("--workers", "2")
    assert "2 processes" in service.line
    for _ in range(12):
        assert service.ask("/predict", IMAGE)[0] == 200
    assert service.metric('requests_total{code="200"}') == 12
    assert service.metric("ready") == 2
    killed, other = children(service.process.pid)
    os.kill(killed, signal.SIGKILL)
    until = time.monotonic() + 15
    while len(now := children(service.process.pid)) < 2 or killed in now or service.metric("ready") < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert other in now
    assert service.metric('requests_total{code="200"}') == 12
    assert service.ask("/predict", IMAGE)[0] == 200
    assert service.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in now)


SIGNAL_AT_THE_FIRST_FORK = """
import os, signal, sys
from multiprocessing.context import ForkProcess
from boxwright.cli.main import main
start = ForkProcess.start
def start_at_a_signal(process):
    print("start", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    start(process)
ForkProcess.start = start_at_a_signal
sys.exit(main(["serve", sys.argv[1], "--port", "0", "--workers", "3"]))
"""


def test_a_signal_while_workers_start_reaches_all_of_them(exported: Path) -> None:
    command = [sys.executable, "-c", SIGNAL_AT_THE_FIRST_FORK, str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["start"]), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_end_with_a_parent_that_is_killed(serving: Any) -> None:
    service = serving("--workers", "2")
    workers = children(service.process.pid)
    service.process.kill()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_headers_that_never_end(serving: Any) -> None:
    """Each connection has its time; a request after another one on the same connection too, and bodies their own."""
    service = serving("--deadline", "0.6")
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    half = b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"  # its body comes after the answer
    for before, sent in (
        (b"", b""),
        (b"", b"POST /predict HTTP/1.1\r\nX-"),
        (whole, b"GET /hea"),
        (half, b"1"),
    ):
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
            connection.sendall(before)
            time.sleep(0.2 if before else 0)
            connection.sendall(sent)
            start, received = time.monotonic(), b""
            while chunk := connection.recv(65536):
                received += chunk
            assert 0.3 < time.monotonic() - start < 4
            assert received.startswith(b"HTTP/1.1 200") == bool(before)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    for _ in range(4):  # beyond that time in all
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"alive"}'
        time.sleep(0.3)
    connection.close()


def test_a_key_of_the_environment(serving: Any) -> None:
    service = serving(environment={"BOXWRIGHT_KEY": "s3cret"})
    assert service.ask("/model")[0] == 401
    assert service.ask("/model", headers={"Authorization": "Bearer s3cret"})[0] == 200


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "70000"], "port is from 0 to 65,535"),
        (["--host", "no.such.host.invalid"], "there is no address 'no.such.host.invalid'"),
        (["--workers", "0"], "workers are from 1 to 256"),
        (["--queue", "0"], "queue is from 1"),
        (["--threshold", "2"], "threshold is between 0 and 1"),
        (["--key", ""], "a key has visible letters"),
        (["--device", "cuda"], "runs on the CPU"),
        (["--head.num_queries", "4"], "is an exported file, whose options"),
        (["--quue", "4"], "did you mean --queue"),
    ],
)
def test_wrong_options(exported: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert main(["serve", str(exported), *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("boxwright: error: ")
    assert line in shown
    assert shown.count("\n") == 1


def test_an_address_that_is_taken(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(exported), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be listened at" in capsys.readouterr().err


def test_models_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"abc")
    for name in ("missing.onnx", "broken.onnx"):
        assert main(["serve", str(tmp_path / name), "--port", "0"]) == 2
        assert name in capsys.readouterr().err
