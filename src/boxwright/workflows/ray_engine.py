"""Shards predicted on a Ray cluster: one worker a device, and nothing but paths travels to it.

Plain actors take shards one by one. Ray Data, whose unit is a block of rows and which repeats what a lost worker had by
its own plan, could not promise that a file of results is written whole or not at all, and by one worker.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from boxwright.workflows.model_hash import hash_model
from boxwright.workflows.observer import Observer
from boxwright.workflows.shard_prediction import Shard, ShardJob, ShardPredictor
from boxwright_runtime.exported_file import is_exported_name
from boxwright_runtime.printable_names import printable

_MOST_LOSSES = 3
"""Workers that a shard may lose: it may be the shard itself that ends them."""

_PATIENCE = 60.0
"""Seconds to wait for a machine, where there is none."""

_CONNECT_SECONDS = 10.0

_PAUSE_SECONDS = 10.0
"""Seconds for which no other worker is started on a device that has lost one; twice that after another loss."""

_CHECK_SECONDS = 5.0
"""Seconds after which machines that have come or gone are noticed."""


class DeviceSlot(NamedTuple):
    """A device of a cluster: a GPU, or the processor of a machine.

    Args:
        node: id of its machine.
        number: of the device there.
        cpus: of the machine, by the number of its devices.
        gpus: 1 or 0.
    """

    node: str
    number: int
    cpus: int
    gpus: int


@dataclass(eq=False)
class _Worker:
    """A worker, and the shard that it works on; None while it loads the model, or has nothing to do."""

    slot: DeviceSlot
    actor: Any
    position: int | None = None


class RayEngine:
    """Predicts shards on every device of a cluster.

    The cluster is the one that ``RAY_ADDRESS`` names, or else a new one of this machine alone.

    Args:
        job: what there is to do.
        observer: hears of workers that were lost.

    Raises:
        ValueError: Ray is not installed, or the device is one that it would choose.
    """

    def __init__(self, job: ShardJob, observer: Observer) -> None:
        # It would report its use to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise ValueError("engine ray needs Ray: pip install 'boxwright[ray]'") from error
        if job.compute.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is auto, cpu or cuda where Ray chooses among several, not {job.compute.device}")
        self._ray, self._job, self._observer = ray, job, observer

    def __call__(self, shards: Sequence[Shard], tell: Callable[[int], None]) -> None:
        """Predict shards, each by whichever worker is free; those of lost workers anew.

        Raises:
            ValueError: a worker cannot do its work, a shard has lost several workers, or no machine is left.
        """
        with _connect(self._ray):
            _Dispatch(self._ray, self._job, shards, tell, self._observer.note).run()


@contextmanager
def _connect(ray: Any) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    # By itself Ray would wait minutes for a cluster that was on this machine once, and has ended.
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        _require_listener(address)
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"Ray cannot be reached at {address}: {' '.join(str(error).split())}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise ``OSError`` where nobody listens at HOST:PORT, for which Ray would wait as well."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


class _Dispatch:
    """Shards on their way through workers."""

    def __init__(
        self, ray: Any, job: ShardJob, shards: Sequence[Shard], tell: Callable[[int], None], note: Callable[[str], None]
    ) -> None:
        self._ray, self._job, self._shards, self._tell, self._note = ray, job, shards, tell, note
        self._pending = deque(range(len(shards)))
        self._workers: dict[DeviceSlot, _Worker] = {}
        self._running: dict[Any, _Worker] = {}
        self._losses: Counter[int | None] = Counter()
        self._not_before: dict[DeviceSlot, float] = {}
        self._num_done = self._num_images = 0
        self._last_seen = time.monotonic()
        self._job_reference = ray.put(job)

    def run(self) -> None:
        """Work until all shards are complete."""
        try:
            while self._num_done < len(self._shards):
                self._hire()
                ready, _ = self._ray.wait(list(self._running), timeout=_CHECK_SECONDS) if self._running else ([], [])
                for reference in ready:
                    self._take(reference)
                if not self._running:
                    time.sleep(0.2)
        finally:
            for worker in self._workers.values():
                self._ray.kill(worker.actor)

    def _hire(self) -> None:
        """Start a worker on each device that has none, as long as there are shards for them."""
        slots = list_slots(self._ray.nodes(), uses_gpus=self._uses_gpus())
        if slots or self._running:
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > _PATIENCE:
            raise ValueError("the Ray cluster has no machine left to predict on: --resume goes on once it has")
        for slot in slots:
            if self._not_before.get(slot, 0.0) > time.monotonic():
                continue
            if slot not in self._workers and len(self._workers) < len(self._shards) - self._num_done:
                worker = _Worker(slot, _start_worker(self._ray, slot, self._job_reference))
                self._workers[slot] = worker
                self._running[worker.actor.prepare.remote()] = worker

    def _uses_gpus(self) -> bool | None:
        """Tell whether workers are to have a GPU; None where they take what there is."""
        model = self._job.model
        if isinstance(model, torch.nn.Module) or not is_exported_name(model):
            return {"auto": None, "cpu": False, "cuda": True}[self._job.compute.device]
        return False

    def _take(self, reference: Any) -> None:
        """Take what a worker has done, and give it more."""
        worker = self._running.pop(reference)
        try:
            num_images = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise ValueError(_describe(error)) from None
        except self._ray.exceptions.RayError as error:
            self._lose(worker, error)
        else:
            self._losses.pop(worker.position, None)
            if worker.position is not None:
                self._num_done += 1
                self._num_images += num_images
                self._tell(self._num_images)
            worker.position = None
        self._give_out()

    def _lose(self, worker: _Worker, error: Exception) -> None:
        """Give the shard of a worker that was lost to another."""
        del self._workers[worker.slot]
        # Where it lives, and only could not be reached: what it still writes does no harm.
        self._ray.kill(worker.actor)
        self._losses[worker.position] += 1
        # Ray notices the end of a machine half a minute later.
        self._not_before[worker.slot] = time.monotonic() + _PAUSE_SECONDS * self._losses[worker.position]
        shard = None if worker.position is None else self._shards[worker.position].number
        what = "before its first shard" if shard is None else f"at shard {shard}"
        if self._losses[worker.position] >= _MOST_LOSSES and (shard is not None or not self._running):
            raise ValueError(
                f"{_MOST_LOSSES} workers of Ray were lost {what}, as if the memory were too small: see Ray's log; "
                f"--resume goes on ({type(error).__name__})"
            )
        self._note(f"a worker of Ray was lost {what}" + ("" if shard is None else ", which is predicted anew"))
        if worker.position is not None:
            self._pending.appendleft(worker.position)

    def _give_out(self) -> None:
        busy = set(map(id, self._running.values()))
        for worker in self._workers.values():
            if self._pending and id(worker) not in busy:
                worker.position = self._pending.popleft()
                self._running[worker.actor.predict.remote(self._shards[worker.position])] = worker


def list_slots(nodes: Sequence[Any], *, uses_gpus: bool | None) -> list[DeviceSlot]:
    """List the devices of a cluster.

    Args:
        nodes: as Ray lists them.
        uses_gpus: take GPUs alone, or processors alone; where None, GPUs of machines that have some.
    """
    slots = []
    for node in nodes:
        resources = node["Resources"]
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if not node["Alive"] or cpus < 1:
            continue
        if gpus and uses_gpus is not False:
            slots += [DeviceSlot(node["NodeID"], number, max(1, cpus // gpus), 1) for number in range(gpus)]
        elif not uses_gpus:
            slots.append(DeviceSlot(node["NodeID"], 0, cpus, 0))
    return slots


def _start_worker(ray: Any, slot: DeviceSlot, job_reference: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {
        "num_cpus": slot.cpus,
        "num_gpus": slot.gpus,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(slot.node, soft=False),
        # Read once, when torch is imported.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(slot.cpus)}},
    }
    return ray.remote(ShardActor).options(**options).remote(job_reference, slot.cpus)


class ShardActor:
    """Predicts shards on one device, in a process of its own.

    Args:
        job: what there is to do.
        threads: that compute on the processor.
    """

    def __init__(self, job: ShardJob, threads: int) -> None:
        self._job, self._threads = job, threads

    def prepare(self) -> int:
        """Load the model, and make sure that this machine sees what the others see.

        Raises:
            ValueError: it sees another model, or not the folder of the results.
        """
        torch.set_num_threads(self._threads)
        job = self._job
        if not job.folder.is_here():
            raise ValueError(f"it does not see {job.folder.path} with the manifest of this run; take a shared folder")
        predictor = job.load(threads=self._threads)
        if hash_model(predictor) != job.folder.manifest.model:
            raise ValueError(f"it has another model under {printable(str(job.model))}")
        self._predictor = ShardPredictor(job, predictor)
        return 0

    def predict(self, shard: Shard) -> int:
        """Predict a shard, write its file, and return the number of its images."""
        self._predictor.predict(shard)
        return len(shard.images)

    def __repr__(self) -> str:
        return f"ShardActor on {socket.gethostname()}"


def _describe(error: Any) -> str:
    cause = error.cause if isinstance(getattr(error, "cause", None), Exception) else error
    host = getattr(error, "ip", "") or "a worker"
    return f"{host}: {' '.join(str(cause).split()) or type(cause).__name__}"
