"""Which Ray a command uses. What to join is checked first: Ray would wait minutes for it."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

ADDRESS = "RAY_ADDRESS"
WAIT_SECONDS = 8.0  # a head may be starting
CONNECT_SECONDS = 3.0
# What a client of HTTP/2, such as gRPC's, says first; a server's answer starts with its settings.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + b"\0" * 5
SETTINGS_FRAME = 4
# A Unix socket's path has at most 107 bytes; those that Ray adds to its folder may have 75, as
# /ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_TaskEventsHead.
LONGEST_FOLDER = 107 - 75
FOLDERS, SHORT_FOLDER = ("RAY_TMPDIR", "TMPDIR"), "/tmp"


def ray_to_use() -> dict[str, str]:
    """Arguments of `ray.init`: none to join the cluster that it finds, or those to start a Ray.

    A Ray that starts gets a temporary folder whose path is short enough for its sockets.

    A cluster that `ray start` has left in this machine's notes and that is gone is not waited for.

    Raises
    ------
    InputError
        If RAY_ADDRESS is no address of a cluster, or nobody answers there.
    """
    address = os.environ.get(ADDRESS, "")
    noted = _noted_address()
    if address == "auto":
        if noted:
            _check(noted, f"{ADDRESS}=auto: {_note()} names {noted}", "start it with ray start")
        return {}
    if address and address != "local":
        _check(address, f"{ADDRESS}={address}", f"start it, or unset {ADDRESS} to start Ray here")
        return {}
    if noted and not address:
        if _answers(noted, CONNECT_SECONDS):
            return {}
        log.info("%s names a cluster at %s, which is gone; starting Ray here", _note(), noted)
    _shorten_folders()
    return {"address": "local"}


def _check(address: str, what: str, mend: str) -> None:
    scheme, separator, place = address.partition("://")
    if separator and scheme == "ray":
        raise InputError(
            f"{what}: Ray's client is not supported; give the head's HOST:PORT (its port is 6379 "
            "unless ray start was told another) on a machine of the cluster, or submit the command "
            "with ray job submit"
        )
    if separator and scheme in ("http", "https"):
        raise InputError(
            f"{what}: that is an address for ray job submit; give the head's HOST:PORT, such as "
            f"{place.split('/')[0].split(':')[0] or 'HOST'}:6379"
        )
    if _host_and_port(address) is None:
        raise InputError(f"{what}: not an address; give HOST:PORT of a cluster's head, or auto")
    if not _answers(address, WAIT_SECONDS):
        raise InputError(f"{what}: no Ray cluster answers there; {mend}")


def _host_and_port(address: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(f"//{address}")
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or not port or parts.netloc != address or set(address) & set(" @"):
        return None
    return parts.hostname, port


def _answers(address: str, seconds: float) -> bool:
    """Whether a gRPC server answers at HOST:PORT, or begins to within some time."""
    place, deadline = _host_and_port(address), time.monotonic() + seconds
    while place is not None:
        try:
            with socket.create_connection(place, CONNECT_SECONDS) as connection:
                if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                    return True  # it would not understand
                connection.sendall(PREFACE)
                start = connection.recv(9)
                return len(start) > 3 and start[3] == SETTINGS_FRAME
        except (OSError, UnicodeError):  # or no such host
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
    return False


def _folder() -> str:
    """Where Ray puts its folder."""
    return next(filter(None, map(os.environ.get, FOLDERS)), SHORT_FOLDER)


def _note() -> Path:
    """The file that `ray start` leaves."""
    return Path(_folder(), "ray", "ray_current_cluster")


def _noted_address() -> str:
    try:
        return _note().read_text().strip()
    except OSError:
        return ""


def _shorten_folders() -> None:
    """Let Ray, its workers and its dashboard have a temporary folder with a short path."""
    for name in FOLDERS:
        folder = os.environ.get(name, "")
        if len(os.fsencode(folder)) <= LONGEST_FOLDER:
            continue
        if not os.access(SHORT_FOLDER, os.W_OK):
            raise InputError(
                f"{name}={folder}: the path is too long for Ray's sockets; give it a folder whose "
                f"path has at most {LONGEST_FOLDER} characters"
            )
        log.info(
            "%s=%s: the path is too long for Ray's sockets; temporary files of this run lie in %s",
            name, folder, SHORT_FOLDER,
        )  # fmt: skip
        os.environ[name] = SHORT_FOLDER
