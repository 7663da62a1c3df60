"""Joining a Ray cluster, or starting one on this machine, with room for readers beside the actors."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.options import LOCAL, FleetOptions
from utils.errors import UserError

LOG = logging.getLogger(__name__)
SECONDS = 5.0  # that a cluster may take to accept a connection; Ray itself would try for minutes
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_DEDUP_LOGS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its logs are in files; what fails is raised
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class Fleet:
    """The actors that a cluster has room for.

    Attributes:
        actors: how many.
        gpus: for each of them, 0 or 1.
    """

    actors: int
    gpus: int

    @property
    def device(self) -> str:
        """Where an actor computes; Ray shows it only the GPU that is its own."""
        return "cuda:0" if self.gpus else "cpu"

    def __str__(self) -> str:
        return f"{self.actors} actor{'s' * (self.actors != 1)} on {'a GPU' if self.gpus else 'a core'} each"


def check_ray(what: str = "--ray", packages: Sequence[str] = ("ray", "pyarrow")) -> None:
    """Check that packages are installed, without importing them.

    Raises:
        UserError: one of them is not.
    """
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise UserError(
                f"{what} needs {package}, which is not installed: pip install -r requirements-ray.txt"
            )


def check_address(address: str) -> None:
    """Check that something listens where a cluster is said to be; nothing is sent.

    Raises:
        UserError: no HOST:PORT, or nothing answers there.
    """
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--ray takes auto or HOST:PORT, got {address}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"--ray {address}: no cluster there ({why}); start one with ray start") from error


@contextlib.contextmanager
def joined(options: FleetOptions, device: str) -> Iterator[Fleet]:
    """Join the cluster, or start one of this machine's cores, for as long as the block runs.

    A cluster of which this process is a part already is used as it is.

    Args:
        options: address and number of actors.
        device: "cpu", or a GPU for each actor; "" takes GPUs where the cluster has any.

    Raises:
        UserError: there is no cluster, or it has no room for the actors and a reader.
    """
    address = options.ray or LOCAL
    check_ray()
    check_address(address)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address == LOCAL and not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray leaves one in the home folder
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        _connect(address, options.actors)
    try:
        yield _room(ray.cluster_resources(), options.actors, device, address)
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str, actors: int | None) -> None:
    import ray

    options: dict[str, Any] = {
        "address": address,
        "logging_level": logging.ERROR,
        "log_to_driver": LOG.isEnabledFor(logging.DEBUG),
    }
    if address == LOCAL:
        cores = max(_cores(), (actors or 1) + 1)  # readers take turns with the actors where cores lack
        if cores > _cores():
            LOG.info("%d actors and the readers share %d cores", actors or 1, _cores())
        options |= {"num_cpus": cores, "include_dashboard": False}
    said = ""
    try:
        with _native_stderr() as stderr:
            try:
                ray.init(**options)
            finally:
                said = stderr()
    except (Exception, SystemExit) as error:  # Ray ends the process where a cluster does not answer
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "InvalidAuthToken" in said:
            why = "it asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token"
        raise UserError(f"--ray {address}: no cluster can be used there ({why})") from error


@contextlib.contextmanager
def _native_stderr() -> Iterator[Callable[[], str]]:
    """Keep what Ray's C++ part writes from the console; yield what returns it."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _room(resources: dict[str, float], actors: int | None, device: str, address: str) -> Fleet:
    """Return the actors that fit, with at least one core left for the readers.

    Raises:
        UserError: they do not fit, or there are no GPUs.
    """
    cores, cards = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    on_gpu = device.strip().lower() not in ("", "cpu") or (not device.strip() and cards > 0)
    if on_gpu and not cards:
        raise UserError(f"--device {device}: the cluster has no GPU; choose cpu")
    most = min(cores - 1, cards) if on_gpu else cores - 1
    if most < 1:
        raise UserError(f"--ray {address}: {cores} cores are too few for an actor and a reader")
    if actors is not None and actors > most:
        has = f"{cores} cores" + (f" and {cards} GPUs" if on_gpu else "")
        raise UserError(f"--actors {actors}: the cluster has {has}, and readers need a core: at most {most}")
    return Fleet(actors or most, int(on_gpu))
