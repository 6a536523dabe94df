"""Bounds of a service: the queue, the deadline, memory, and clients that go away."""

from __future__ import annotations

import asyncio
import time

import pytest

from asgi_requests import Answered, Request, encode_form, encode_image
from boxwright.serving import ServingOptions
from service_client import Client, GatedModel, run_service

IMAGE = encode_image(4, 4)


async def until(condition: object) -> None:
    """Wait until a function gives True."""
    assert callable(condition)
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


async def occupy(client: Client, gated: GatedModel, image: bytes = IMAGE) -> asyncio.Task[Answered]:
    """Send an image and wait until it is in the model, behind the closed gate."""
    gated.gate.clear()
    gated.entered.clear()
    task = asyncio.create_task(client.ask("/predict", image))
    await until(gated.entered.is_set)
    return task


def test_requests_that_wait_share_a_batch(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        first = await occupy(client, gated)
        waiting = [
            asyncio.create_task(client.ask("/predict", encode_image(*size, level)))
            for size, level in (((4, 4), 20), ((5, 4), 40), ((4, 4), 60), ((4, 4), 80), ((5, 4), 100))
        ]
        await until(lambda: len(client.service._batcher) == 5)
        gated.gate.set()
        answers = await asyncio.gather(first, *waiting)
        scores = [answer.content["images"][0]["detections"][0]["score"] * 255 for answer in answers]
        assert scores == pytest.approx([200, 20, 40, 60, 80, 100])
        assert gated.batches[:2] == [1, 1]  # of the warm-up, and the first
        assert sorted(gated.batches[2:]) == [2, 3]
        assert client.service.metrics["batches_total"] == 4

    run_service(gated.serve(), ask, ServingOptions(threshold=0, batch_wait=100))


def test_an_image_that_fails_does_not_spoil_its_batch(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        first = await occupy(client, gated)
        waiting = [asyncio.create_task(client.ask("/predict", encode_image(4, 4, level))) for level in (90, 13, 99)]
        await until(lambda: len(client.service._batcher) == 3)
        gated.gate.set()
        one, failed, other = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(failed, ValueError)
        assert [answer.status for answer in (await first, one, other)] == [200, 200, 200]

    run_service(gated.serve(), ask)


def test_an_image_alone_waits_for_nobody(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        start = time.perf_counter()
        for _ in range(5):
            assert (await client.ask("/predict", IMAGE)).status == 200
        assert time.perf_counter() - start < 4  # five times a second, had each waited

    run_service(gated.serve(), ask, ServingOptions(batch_wait=1000))


def test_a_full_queue_refuses(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        first = await occupy(client, gated)
        second = asyncio.create_task(client.ask("/predict", IMAGE))
        await until(lambda: client.service.queue.held == 2)
        for body, headers in ((IMAGE, {}), encode_form({"a": IMAGE})):
            refused = await client.ask("/predict", body, headers=headers)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
        too_many, headers = encode_form({"a": IMAGE, "b": IMAGE, "c": IMAGE})
        gated.gate.set()
        assert [(await first).status, (await second).status] == [200, 200]
        assert (await client.ask("/predict", too_many, headers=headers)).error == "a request has at most 2 images"
        assert (await client.ask("/predict", IMAGE)).status == 200

    run_service(gated.serve(), ask, ServingOptions(queue=2))


def test_a_request_of_several_images_is_taken_whole_or_refused(gated: GatedModel) -> None:
    two, headers = encode_form({"a": IMAGE, "b": IMAGE})

    async def ask(client: Client) -> None:
        first = await occupy(client, gated)
        assert (await client.ask("/predict", two, headers=headers)).status == 429
        assert client.service.queue.held == 1
        gated.gate.set()
        assert (await first).status == 200
        assert (await client.ask("/predict", two, headers=headers)).status == 200

    run_service(gated.serve(), ask, ServingOptions(queue=2))


def test_the_deadline(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        late = await (await occupy(client, gated))
        assert (late.status, late.error) == (504, "no answer within 0.3 s")
        slow = await Request("/predict", [IMAGE[:9]], ends=False, gone=already_gone_later()).send_to(client.application)
        assert slow.status == 408
        gated.gate.set()
        assert client.service.queue.held == client.service.bodies.held == client.service._pixels.held == 0

    def already_gone_later() -> asyncio.Event:
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(0.6, gone.set)
        return gone

    run_service(gated.serve(), ask, ServingOptions(deadline=0.3))


def test_whoever_goes_away_is_dropped(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        first = await occupy(client, gated)
        batches = len(gated.batches)
        leaving = Request("/predict", [IMAGE])
        task = asyncio.create_task(leaving.send_to(client.application))
        staying = asyncio.create_task(client.ask("/predict", IMAGE))
        await until(lambda: len(client.service._batcher) == 2)
        leaving.gone.set()
        await task
        assert client.service.queue.held == 2
        gated.gate.set()
        assert [(await first).status, (await staying).status] == [200, 200]
        assert gated.batches[batches:] == [1, 1]
        assert client.service.metrics["requests 499"] == 1
        in_the_middle = Request("/predict", [IMAGE[:20]], ends=False)
        in_the_middle.gone.set()
        await in_the_middle.send_to(client.application)
        assert client.service.metrics["requests 499"] == 2
        assert client.service.bodies.held == 0

    run_service(gated.serve(), ask)


def test_decoded_pixels_are_bounded(gated: GatedModel) -> None:
    """Images beyond the budget wait with their bytes alone, and come in turn."""

    async def ask(client: Client) -> None:
        first = await occupy(client, gated, encode_image(10, 10))
        others = [asyncio.create_task(client.ask("/predict", encode_image(10, 10))) for _ in range(5)]
        await until(lambda: client.service.queue.held == 6)
        await asyncio.sleep(0.1)
        assert client.service._pixels.held == 200
        assert len(client.service._batcher) == 1
        gated.gate.set()
        assert [(await one).status for one in (first, *others)] == [200] * 6

    run_service(gated.serve(), ask, ServingOptions(max_pixels=100))


def test_bodies_in_memory_are_bounded(gated: GatedModel) -> None:
    async def ask(client: Client) -> None:
        stopped = [Request("/predict", [bytes(100)], ends=False) for _ in range(8)]
        tasks = [asyncio.create_task(one.send_to(client.application)) for one in stopped]
        await until(lambda: client.service.bodies.held == 800)
        assert (await client.ask("/predict", IMAGE)).status == 429
        for one in stopped:
            one.gone.set()
        await asyncio.gather(*tasks)
        assert (await client.ask("/predict", IMAGE)).status == 200

    run_service(gated.serve(), ask, ServingOptions(max_bytes=100))
