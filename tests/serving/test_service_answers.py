"""Answers of a service: those of ``predict``, in each form, and one line where there is none."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount

import boxwright
from asgi_requests import Request, cut, encode_form, encode_image
from boxwright.serving import ServingOptions, app
from boxwright.serving.metrics import STATUSES
from boxwright.serving.served_model import open_model
from boxwright.serving.service import Service
from boxwright_runtime import Runtime
from boxwright_runtime.answers import detection_rows
from service_client import Client, GatedModel, run_service
from stand_in_export import write_stand_in

BRIGHT = encode_image(30, 40)


def rows_without_names(runtime: Runtime, image: bytes, threshold: float = 0.3) -> list[dict[str, object]]:
    rows = detection_rows("", runtime.predict(image, threshold=threshold))
    return [{key: value for key, value in row.items() if key != "file_name"} for row in rows]


@pytest.mark.parametrize("size", [(30, 40), (1, 1), (7, 301)])
def test_json_is_of_predict(exported: Path, size: tuple[int, int]) -> None:
    image = encode_image(*size)

    async def ask(client: Client) -> None:
        answer = await client.ask("/predict", cut(image, 50))
        assert answer.status == 200
        (only,) = answer.content["images"]
        assert (only["height"], only["width"], only["file_name"]) == (*size, "")
        assert only["detections"] == rows_without_names(Runtime(exported), image)
        assert [row["category_id"] for row in only["detections"]] == [7, 3]

    run_service(open_model(exported), ask)


def test_forms_answer_in_order(exported: Path) -> None:
    form, headers = encode_form({"b.png": BRIGHT, "folder/a.jpg": encode_image(20, 10, 255, "JPEG")})

    async def ask(client: Client) -> None:
        for size in (1, 13, len(form)):
            answer = await client.ask("/predict", cut(form, size), headers=headers)
            assert [(one["file_name"], one["width"]) for one in answer.content["images"]] == [
                ("b.png", 40),
                ("a.jpg", 10),
            ]
        rows = (await client.ask("/predict?format=coco&threshold=0.6", form, headers=headers)).content
        assert [(row["image_id"], row["category_id"], row["bbox"]) for row in rows] == [
            (1, 7, [0, 0, 40, 30]),
            (2, 7, [0, 0, 10, 20]),
        ]
        assert rows[0]["segmentation"]["size"] == [30, 40]

    run_service(open_model(exported), ask)


def test_a_drawing_is_a_jpeg_of_the_image(exported: Path) -> None:
    async def ask(client: Client) -> None:
        answer = await client.ask("/predict?format=image", encode_image(300, 400))
        assert answer.headers["content-type"] == "image/jpeg"
        drawing = np.asarray(Image.open(BytesIO(answer.body)))
        assert drawing.shape[1] == 400
        assert (np.abs(drawing[:300].astype(int) - 200) > 20).any()
        form, headers = encode_form({"a": BRIGHT, "b": BRIGHT})
        assert "of one, not of 2" in (await client.ask("/predict?format=image", form, headers=headers)).error

    run_service(open_model(exported), ask)


def test_thresholds_and_classes(exported: Path) -> None:
    async def ask(client: Client) -> None:
        async def names(query: str) -> list[str]:
            answer = await client.ask(f"/predict{query}", encode_image(30, 40, 255))
            return [row["category_name"] for row in answer.content["images"][0]["detections"]]

        assert await names("") == ["thing", "quarter"]
        assert await names("?threshold=0.5") == ["thing", "quarter"]  # what is equal counts
        assert await names("?threshold=0.51") == ["thing"]
        assert await names("?threshold=tuned") == ["thing"]
        assert await names("?classes=quarter") == ["quarter"]
        assert await names("?classes=quarter,%20thing&threshold=1") == ["thing"]
        assert await names("?classes=quarter&classes=thing") == ["thing", "quarter"]

    run_service(open_model(exported), ask)


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("?threshold=1.5", "threshold is between 0 and 1, or tuned, not '1.5'"),
        ("?threshold=nan", "threshold is between 0 and 1"),
        ("?classes=thin", "there is no class 'thin'; did you mean 'thing'?"),
        ("?classes=", "there is no class ''"),
        ("?format=xml", "format is json, coco or image, not 'xml'"),
        ("?url=http://localhost/", "unknown parameter 'url': there are threshold, classes, format"),
    ],
)
def test_wrong_questions(exported: Path, query: str, line: str) -> None:
    async def ask(client: Client) -> None:
        answer = await client.ask(f"/predict{query}", BRIGHT)
        assert answer.status == 400
        assert line in answer.error

    run_service(open_model(exported), ask)


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}


@pytest.mark.parametrize(
    ("body", "headers", "line"),
    [
        (b"", {}, "the body is empty"),
        (b"abc", {}, "it is not an image file"),
        (BRIGHT[:60], {}, "the image cannot be read"),
        (encode_image(30, 40, kind="JPEG")[:200], {}, "the image cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {}, "it is not an image file"),
        (BRIGHT, FORM, "the form is damaged"),
        (b'--edge\r\nContent-Disposition: form-data; a="' + b";" * 999, FORM, "has more than 1,000 bytes"),
        (BRIGHT, {"Content-Type": 'multipart/form-data; a="' + ";" * 999}, "has more than 1,000 bytes"),
        (encode_form({"a.png": BRIGHT})[0][:-9], FORM, "its end is missing"),
        (b"--edge--\r\n", FORM, "the form"),
        (BRIGHT, {"Content-Type": "multipart/form-data"}, "no boundary"),
        (BRIGHT, {"Content-Type": f"multipart/form-data; boundary={'x' * 999}"}, "the form is damaged"),
        (encode_form({"a.png": BRIGHT, "b.png": b"abc"})[0], FORM, "b.png: the image cannot be read"),
        (b"file:///etc/passwd", {"Content-Type": "text/uri-list"}, "it is not an image file"),
    ],
)
def test_damaged_bodies(exported: Path, body: bytes, headers: dict[str, str], line: str) -> None:
    async def ask(client: Client) -> None:
        answer = await client.ask("/predict", body, method="POST", headers=headers)
        assert answer.status == 400
        assert line in answer.error
        assert client.service.queue.held == client.service.bodies.held == 0
        assert (await client.ask("/predict", BRIGHT)).status == 200

    run_service(open_model(exported), ask)


def test_bodies_are_bounded_while_they_arrive(exported: Path) -> None:
    async def ask(client: Client) -> None:
        request = Request("/predict", [bytes(600)] * 10, ends=False)
        answer = asyncio.create_task(request.send_to(client.application))
        while request.num_read < 10:
            await asyncio.sleep(0.01)
        assert client.service.bodies.held == 0  # what follows is dropped
        request.gone.set()
        assert (await answer).status == 413
        declared = await client.ask("/predict", BRIGHT, headers={"Content-Length": "1001"})
        assert declared.error == "the body has more than 1,000 bytes"

    run_service(open_model(exported), ask, ServingOptions(max_bytes=1000))


def test_pixels_are_bounded_by_the_header(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes) -> None:
        raise AssertionError("it is decoded")

    async def ask(client: Client) -> None:
        for image in (encode_image(30, 41), encode_image(30, 41, kind="JPEG"), encode_image(30, 41, kind="TIFF")):
            answer = await client.ask("/predict", image)
            assert (answer.status, answer.error) == (
                413,
                "the image has 41 x 30 pixels, and 1,200 is the most that is taken",
            )
        monkeypatch.undo()
        assert (await client.ask("/predict", BRIGHT)).status == 200

    monkeypatch.setattr("boxwright.serving.image_bytes.decode_rgb", refuse)
    run_service(open_model(exported), ask, ServingOptions(max_pixels=1200))


def test_keys(exported: Path) -> None:
    async def ask(client: Client) -> None:
        for sent in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "s3cret"},
            {"Authorization": "Bearer s3cret "},
        ):
            for path in ("/model", "/metrics"):
                assert (await client.ask(path, headers=sent)).status == 401
            answer = await client.ask("/predict", BRIGHT, headers=sent)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "s3cret" not in answer.error
        right = {"Authorization": "Bearer s3cret"}
        assert (await client.ask("/predict", BRIGHT, headers=right)).status == 200
        assert (await client.ask("/model", headers=right)).status == 200
        for path in ("/", "/health", "/ready", "/openapi.json"):
            assert (await client.ask(path)).status == 200
        assert b"s3cret" not in (await client.ask("/openapi.json")).body

    run_service(open_model(exported), ask, ServingOptions(key="s3cret"))
    assert "s3cret" not in repr(ServingOptions(key="s3cret"))


def test_facts(exported: Path) -> None:
    async def ask(client: Client) -> None:
        facts = (await client.ask("/model")).content
        assert [one["name"] for one in facts["categories"]] == ["thing", "quarter"]
        assert facts["input"]["image_size"] == 32
        assert facts["thresholds"] == {"thing": 0.5, "quarter": 0.9}
        assert facts["bounds"]["queue"] == 64
        assert str(exported.parent) not in str(facts)
        api = (await client.ask("/openapi.json")).content
        for path, methods in api["paths"].items():
            for method in methods:
                answer = await client.ask(path, BRIGHT if method == "post" else b"", method=method.upper())
                assert answer.status == 200
                kind = answer.headers["content-type"].partition(";")[0]
                assert kind in methods[method]["responses"]["200"]["content"]
        assert set(api["paths"]) == {route.path for route in client.application.routes}
        assert (await client.ask("/nothing")).error == "Not Found"
        assert (await client.ask("/predict")).status == 405

    run_service(open_model(exported), ask)


def test_metrics_count(exported: Path) -> None:
    async def ask(client: Client) -> None:
        await client.ask("/predict", BRIGHT)
        await client.ask("/predict", b"abc")
        text = (await client.ask("/metrics")).body.decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert lines['boxwright_requests_total{code="200"}'] == lines['boxwright_requests_total{code="400"}'] == "1"
        assert lines["boxwright_images_total"] == "2"  # one to warm up
        assert lines["boxwright_detections_total"] == "2"
        assert lines['boxwright_request_seconds_bucket{le="+Inf"}'] == lines["boxwright_request_seconds_count"] == "1"
        assert lines["boxwright_received_bytes_total"] == str(len(BRIGHT) + 3)
        assert lines["boxwright_images_in_work"] == lines["boxwright_body_bytes_in_memory"] == "0"
        assert lines["boxwright_ready"] == "1"
        assert sum(line.startswith("boxwright_requests_total") for line in lines) == len(STATUSES)

    run_service(open_model(exported), ask)


def test_forms_of_very_many_parts_are_refused_at_once(exported: Path) -> None:
    form = b"--edge\r\n\r\n\r\n" * 100_000

    async def ask(client: Client) -> None:
        request = Request("/predict", cut(form, 65536), headers=FORM)
        answer = await request.send_to(client.application)
        assert (answer.status, answer.error) == (413, "a request has at most 64 images")
        assert client.service.bodies.held == 0

    run_service(open_model(exported), ask)


def test_a_classifier_tells_its_likeliest_class(tmp_path: Path) -> None:
    model = open_model(write_stand_in(tmp_path / "classifier.onnx", task="classification"))

    async def ask(client: Client) -> None:
        answer = await client.ask("/predict?threshold=1", encode_image(30, 40, 100))
        assert [row["category_name"] for row in answer.content["images"][0]["detections"]] == ["thing"]
        assert "for classification: take json" in (await client.ask("/predict?format=coco", BRIGHT)).error
        assert (await client.ask("/predict?format=image", BRIGHT)).status == 200

    run_service(model, ask)


def test_openvino_is_served(tmp_path: Path) -> None:
    file = write_stand_in(tmp_path / "model.xml", masks="box")

    async def ask(client: Client) -> None:
        answer = await client.ask("/predict", BRIGHT)
        assert answer.content["images"][0]["detections"] == rows_without_names(Runtime(file), BRIGHT)

    run_service(open_model(file), ask)
    with pytest.raises(ValueError, match="which OpenVINO and GPUs do not allow"):
        boxwright.serve(file, port=0, workers=2)


def test_a_missing_extra_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(ValueError, match=r"uvicorn is not installed: pip install 'boxwright\[serve\]'"):
        boxwright.serve(exported, port=0)


def test_mounted_in_another_application(exported: Path) -> None:
    outer = Starlette(routes=[Mount("/detector", app(exported))])

    async def ask() -> None:
        answer = await Request("/detector/predict", [BRIGHT]).send_to(outer)
        assert len(answer.content["images"][0]["detections"]) == 2
        assert (await Request("/detector/ready").send_to(outer)).status == 200

    asyncio.run(ask())


def test_failures_of_the_model_are_of_the_service(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        with pytest.raises(ValueError, match="fails on 13"):  # for the server's log
            await client.ask("/predict", encode_image(4, 4, 13))
        assert (await client.ask("/predict", encode_image(4, 4, 200))).status == 200
        assert client.service.metrics["requests 500"] == 1

    run_service(gated.serve(), ask)


def test_a_model_that_cannot_predict_is_not_ready(gated: GatedModel, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        gated.fails_on = 0  # of the image to warm up
        service = Service(gated.serve(), ServingOptions())
        client = Client(service)
        with pytest.raises(ValueError, match="fails on 0"):
            await service.start()
        answer = await client.ask("/ready")
        assert (answer.status, answer.error) == (503, "the model cannot predict; the log of the service says why")
        assert (await client.ask("/health")).status == 200
        await service.stop()

    asyncio.run(ask())
    assert "fails on 0" in caplog.text


def test_a_model_without_tuned_thresholds(gated: GatedModel) -> None:
    with pytest.raises(ValueError, match="thresholds of this model were not tuned"):
        app(gated.serve(), ServingOptions(threshold="tuned"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 2},
        {"key": ""},
        {"key": "a\nb"},
        {"key": "a "},
        {"max_bytes": 0},
        {"max_pixels": 10**9},
        {"queue": 0},
        {"deadline": 0},
        {"batch_wait": -1},
        {"batch_size": 0},
    ],
)
def test_options_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServingOptions(**wrong)
