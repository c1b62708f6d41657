"""SMILES to one 3D structure, as unimol_tools makes it, in a process that may be killed.

`embed` is the recipe. `IsolatedEmbedder` runs it in a child process with a time limit, so
that a molecule on which RDKit hangs or crashes costs that molecule and not the run.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import select
import subprocess
import sys
import time
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import rdkit
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom, rdForceFieldHelpers

from pipeline.errors import InputError, RowRejected

DEFAULT_SEED = 42
# ETKDG embedding, relaxed by MMFF94 or left as embedded; or both of them by nvMolKit on a GPU.
METHODS = ("etkdg+mmff", "etkdg", "nvmolkit")
NVMOLKIT = METHODS[2]
CODE_VERSION = 1  # raise it when the same SMILES would give another conformer
START_LIMIT_SECONDS = 120
DEFAULT_LIMIT_GB = 4.0
ATTEMPTS = 2
CHILD = "from pipeline.conformers import serve; serve({})"


class Conformer(NamedTuple):
    """atoms: (N,) uint8 atomic numbers; coords: (N, 3) float32, Å; kind: "3d" or "2d"."""

    atoms: np.ndarray
    coords: np.ndarray
    kind: str


def identity(*, seed: int, hydrogens: bool, method: str = METHODS[0]) -> dict[str, Any]:
    """What decides a conformer besides its SMILES, JSON-ready.

    Raises
    ------
    InputError
        If the method needs nvMolKit and it is not installed.
    """
    decides = {
        "method": method,
        "code_version": CODE_VERSION,
        "rdkit": rdkit.__version__,
        "seed": seed,
        "hydrogens": hydrogens,
    }
    if method == NVMOLKIT:
        try:
            decides[NVMOLKIT] = metadata.version(NVMOLKIT)
        except metadata.PackageNotFoundError:
            raise InputError(
                "--conformer_method nvmolkit: the package nvmolkit is not installed; it needs a "
                "GPU and the RDKit version that its wheel names"
            ) from None
    return decides


def embed(
    smiles: str,
    *,
    seed: int = DEFAULT_SEED,
    hydrogens: bool = False,
    method: str = METHODS[0],
) -> Conformer:
    """One conformer, equal to `unimol_tools.data.conformer.inner_smi2coords` in mode "fast".

    Hydrogens are added, the molecule is embedded by ETKDG and relaxed by MMFF94; where MMFF
    has no parameters the embedded coordinates stay. Where the embedding fails, 2D coordinates
    take its place and `kind` is "2d".

    Parameters
    ----------
    hydrogens : keep hydrogens in the result.
    method : "etkdg+mmff", or "etkdg", which takes half the time and gives other coordinates.

    Raises
    ------
    RowRejected
        If the SMILES does not parse, RDKit raises, or no atom is left. (unimol_tools puts
        every atom at the origin where RDKit raises.)
    """
    molecule = with_hydrogens(smiles)
    try:
        kind = "3d" if rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) == 0 else "2d"
        if kind == "3d" and method == METHODS[0]:
            _relax(molecule)
        elif kind == "2d":
            rdDepictor.Compute2DCoords(molecule)
    except (RuntimeError, ValueError) as error:  # RDKit's C++ invariants surface as these
        raise RowRejected(f"RDKit cannot place its atoms: {first_line(error)}") from None
    return conformer_of(molecule, kind, hydrogens)


def with_hydrogens(smiles: str) -> Chem.Mol:
    """The molecule with explicit hydrogens; RowRejected if its SMILES does not parse."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise RowRejected("SMILES does not parse")
    return Chem.AddHs(molecule)


def conformer_of(molecule: Chem.Mol, kind: str, hydrogens: bool) -> Conformer:
    """The molecule's only conformer, with or without hydrogens.

    Raises
    ------
    RowRejected
        If no atom is left, or a coordinate is not finite.
    """
    coords = molecule.GetConformer().GetPositions().astype(np.float32)
    atoms = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.uint8)
    if not hydrogens:
        heavy = atoms != 1
        atoms, coords = atoms[heavy], coords[heavy]
    if len(atoms) == 0:
        raise RowRejected("no atoms left after removing hydrogens")
    if not np.isfinite(coords).all():
        raise RowRejected("RDKit gave coordinates that are not finite")
    return Conformer(atoms, coords, kind)


def _relax(molecule: Chem.Mol) -> None:
    try:
        rdForceFieldHelpers.MMFFOptimizeMolecule(molecule)
    except (RuntimeError, ValueError):
        pass  # no MMFF parameters: the embedded coordinates stay, as in unimol_tools


def first_line(error: Exception) -> str:
    """What an error says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


class IsolatedEmbedder:
    """`embed` in a child process that is killed when a molecule exceeds a time limit.

    Parameters
    ----------
    seed, hydrogens, method : as `embed`.
    limit_seconds : wall-clock time that one molecule may take.
    limit_gb : memory that the child may take, GiB.
    """

    def __init__(
        self,
        *,
        seed: int,
        hydrogens: bool,
        limit_seconds: float,
        limit_gb: float = DEFAULT_LIMIT_GB,
        method: str = METHODS[0],
    ):
        self.limit_seconds, self.limit_gb = limit_seconds, limit_gb
        self.recipe = {"seed": seed, "hydrogens": hydrogens, "method": method}
        self._child: subprocess.Popen | None = None

    def embed(self, smiles: str) -> Conformer:
        """As `embed`; RowRejected also if the child exceeds a limit, or dies each time.

        InputError if it does not start, which is no molecule's fault.
        """
        request = {"smiles": smiles, **self.recipe}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._asked(request)
                break
            except TimeoutError:
                self.close()
                raise RowRejected(
                    f"conformer generation took more than {self.limit_seconds:g} s"
                ) from None
            except (EOFError, BrokenPipeError):  # or the system killed it for others' memory
                code = self.close()
                if attempt == ATTEMPTS:
                    raise RowRejected(
                        f"RDKit crashed on it {ATTEMPTS} times (exit code {code})"
                    ) from None
            except (
                BaseException
            ):  # interrupted: an answer on its way must not meet another molecule
                self.close()
                raise
        if "reason" in answer:
            raise RowRejected(answer["reason"])
        coords = np.frombuffer(bytes.fromhex(answer["coords"]), dtype=np.float32).reshape(-1, 3)
        return Conformer(np.array(answer["atoms"], dtype=np.uint8), coords, answer["kind"])

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        """The child's answer."""
        child = self._running_child()
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        return json.loads(_read_line(child, self.limit_seconds))

    def embed_or_reject(self, smiles: str) -> Conformer | RowRejected:
        """As `embed`, with the rejection returned."""
        try:
            return self.embed(smiles)
        except RowRejected as rejection:
            return rejection

    def close(self) -> int | None:
        """End the child, if there is one, and return its exit code."""
        if self._child is None:
            return None
        self._child.kill()
        code = self._child.wait()
        self._child = None
        return code

    def _running_child(self) -> subprocess.Popen:
        for attempt in range(1, ATTEMPTS + 1):
            if self._child is not None:
                break
            try:
                self._child = self._started_child()
                _read_line(self._child, START_LIMIT_SECONDS)  # "ready"
            except (TimeoutError, EOFError, OSError) as error:
                code = self.close()
                if attempt == ATTEMPTS:
                    raise InputError(
                        f"the process that makes conformers does not start on {platform.node()} "
                        f"(exit code {code}{f', {error}' if str(error) else ''}); the log of its "
                        "Ray worker says why. If it is memory, raise --conformer_gb, which is "
                        f"{self.limit_gb:g}"
                    ) from None
        return self._child

    def _started_child(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD.format(self.limit_gb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        )

    def __del__(self):
        self.close()


def _read_line(child: subprocess.Popen, limit_seconds: float) -> bytes:
    """One line from the child's stdout; it writes only in answer, so no line is split."""
    deadline, received = time.monotonic() + limit_seconds, b""
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        chunk = os.read(child.stdout.fileno(), 1 << 20)
        if not chunk:
            raise EOFError
        received += chunk
    return received


def serve(limit_gb: float) -> None:
    """The child's loop: one JSON request a line on stdin, one JSON answer a line on stdout.

    Parameters
    ----------
    limit_gb : address space that this process may take, GiB.
    """
    limit = int(limit_gb * 1024**3)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.nice(10)  # where cores are shared, an encoder with a full batch goes first
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever RDKit prints must not mix with the answers
    embed("CC")  # or it ends here: no memory for any molecule
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            made = embed(request.pop("smiles"), **request)
            answer = {
                "atoms": made.atoms.tolist(),
                "coords": made.coords.tobytes().hex(),
                "kind": made.kind,
            }
        except RowRejected as rejection:
            answer = {"reason": str(rejection)}
        except MemoryError:
            answer = {"reason": f"RDKit needs more than {limit_gb:g} GiB for it"}
        print(json.dumps(answer), file=answers, flush=True)
