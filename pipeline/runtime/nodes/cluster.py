"""The Ray cluster: joining or starting one, and what to ask of it."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.exceptions import AuthenticationError

from pipeline.runtime.errors import InputError, told
from pipeline.runtime.nodes.address import ray_to_use

MAX_RESOURCES = "MOLSIEVE_MAX_RESOURCES"
# How often Ray Train's controller looks at its workers, in seconds. Ray's default of 2 s
# would make each report of a run whose epochs take milliseconds cost 2 s.
TRAIN_POLL_SECONDS = "0.1"
STARTS, SLOW_START = 3, "timed out during startup"

log = logging.getLogger(__name__)


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or one on this machine, else start Ray here.

    A cluster that this starts serves its dashboard on 127.0.0.1 only.

    Raises
    ------
    InputError
        If RAY_ADDRESS names no cluster that answers, if a token is missing, or Ray does not start.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", TRAIN_POLL_SECONDS)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # C++ notes that no user can act on
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised as well
    if not ray.is_initialized():
        if "RAY_ADDRESS" not in os.environ:  # nobody reclaims this machine as they do spot nodes
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        try:
            init_ray(
                **ray_to_use(),
                log_to_driver=bool(os.environ.get("MOLSIEVE_WORKER_LOGS")),
                logging_level=logging.ERROR,
                dashboard_host="127.0.0.1",
            )
        except AuthenticationError as error:
            raise InputError(
                "RAY_AUTH_MODE=token, but there is no token: put the cluster's into "
                "~/.ray/auth_token, or make one with ray get-auth-token --generate"
            ) from error
        except ConnectionError as error:
            address = os.environ.get("RAY_ADDRESS")
            raise InputError(
                f"{f'RAY_ADDRESS={address}: ' if address else ''}cannot join a Ray cluster: "
                f"{told(error)}; {_token_to_send()}; else start a cluster with ray start, or unset "
                "RAY_ADDRESS to start Ray here"
            ) from error
    configure_data()


def _token_to_send() -> str:
    """What to do where a cluster that answers refuses: Ray sends no address a token unasked."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return "if it wants a token, ~/.ray/auth_token must hold the same as on its head"
    return "if it wants a token, export RAY_AUTH_MODE=token"


def init_ray(**how: Any) -> None:
    """`ray.init`, tried again where a busy machine did not start Ray within Ray's 30 s.

    Raises
    ------
    InputError
        If it did not so again and again.
    """
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(**how)
            return
        except Exception as error:  # Ray has no class for it
            if SLOW_START not in str(error):
                raise
            ray.shutdown()
            log.warning("Ray did not start in time (attempt %s of %s)", attempt, STARTS)
    raise InputError(
        f"Ray did not start within 30 s, {STARTS} times: this machine is too busy; wait, and run "
        "again"
    )


def configure_data() -> None:
    """Ray Data's settings: its bars on a terminal, our progress lines elsewhere; our own errors."""
    context = ray.data.DataContext.get_current()
    context.raise_original_map_exception = True  # else InputErrors of workers lose their class
    # A short run has fewer batches than encoders: nobody needs to be warned of that.
    warnings.filterwarnings("ignore", r"The minimum number of concurrent actors", UserWarning)
    on_terminal = sys.stderr.isatty()
    context.enable_progress_bars = on_terminal
    context.print_on_execution_start = False


def resources() -> dict[str, float]:
    """What the cluster has, or may grow to where MOLSIEVE_MAX_RESOURCES says so.

    Raises
    ------
    InputError
        If MOLSIEVE_MAX_RESOURCES is not a JSON object of numbers.
    """
    now, most = ray.cluster_resources(), _most_resources()
    return {name: max(now.get(name, 0.0), most.get(name, 0.0)) for name in now | most}


def _most_resources() -> dict[str, float]:
    """What the environment says of a cluster that grows; Ray's autoscaler does not tell."""
    text = os.environ.get(MAX_RESOURCES)
    if not text:
        return {}
    try:
        most = {str(name): float(value) for name, value in json.loads(text).items()}
        if not all(0 <= value < math.inf for value in most.values()):
            raise ValueError
        return {"memory": math.inf, **most}  # where it is not named, it bounds nothing
    except (ValueError, AttributeError, TypeError):
        raise InputError(
            f"{MAX_RESOURCES}={text}: not a JSON object of numbers such as "
            '{"CPU": 1024, "GPU": 8}'
        ) from None


def cluster_cores() -> int:
    """CPU cores of the whole cluster, or those that it may grow to."""
    return max(1, int(resources().get("CPU", 1)))


def cores_now() -> int:
    """CPU cores of the cluster as it is."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def is_one_node() -> bool:
    """Whether the cluster is the node that this process is on, has cores there, and stays so."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return (
        len(nodes) == 1
        and nodes[0]["NodeID"] == ray.get_runtime_context().get_node_id()
        and nodes[0]["Resources"].get("CPU", 0) >= 1
        and not os.environ.get(MAX_RESOURCES)
    )


def device_of(setting: str) -> str:
    """The device that "auto", "cpu" or "cuda" means on this cluster.

    Raises
    ------
    InputError
        If "cuda" is asked for and no node has a GPU, or can be started with one.
    """
    has_gpu = resources().get("GPU", 0) > 0
    if setting == "cuda" and not has_gpu:
        grows = f", or tell by {MAX_RESOURCES} how far the cluster may grow"
        raise InputError(
            "--device cuda: no node of the Ray cluster has a GPU; use --device cpu"
            f"{grows if 'RAY_ADDRESS' in os.environ else ''}"
        )
    return "cuda" if has_gpu and setting != "cpu" else "cpu"


def device_name(device: str) -> str | None:
    """What the cluster's "cuda" or this machine's "cpu" is; None if the GPUs are of several kinds.

    Ray counts each kind of GPU as a resource of its own.
    """
    if device == "cuda":
        prefix = "accelerator_type:"
        kinds = [name[len(prefix) :] for name in ray.cluster_resources() if name.startswith(prefix)]
        return kinds[0] if len(kinds) == 1 else None
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
