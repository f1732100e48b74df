"""Finite groups of orthogonal matrices: product table, classes, irreps, Clebsch–Gordan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from latticezoo.symmetry.errors import InputError, unknown

#: Version of the representation conventions; saved weights depend on it.
CONVENTION_VERSION = 1


@dataclass(frozen=True, eq=False)
class Irrep:
    name: str
    dim: int
    matrices: np.ndarray
    kind: str = "real"

    @property
    def character(self) -> np.ndarray:
        return np.trace(self.matrices, axis1=1, axis2=2)


@dataclass(frozen=True, eq=False)
class Representation:
    spec: str
    blocks: tuple[tuple[int, str, int], ...]
    matrices: np.ndarray

    @property
    def dim(self) -> int:
        return self.matrices.shape[-1]


class FiniteGroup:
    def __init__(self, name, matrices, irreps=None, element_names=None):
        self.name = name
        self.matrices = np.asarray(matrices, float)
        self.order, self.dim = self.matrices.shape[:2]
        self.element_names = tuple(element_names or (f"g{i}" for i in range(self.order)))
        self.irreps = {
            key: Irrep(key, m.shape[-1], m, kind) for key, (m, kind) in (irreps or {}).items()
        }
        self.trivial = next(iter(self.irreps), "A1")

    def index(self, matrix) -> int:
        distance = np.abs(self.matrices - np.asarray(matrix)).max((1, 2))
        best = int(distance.argmin())
        if distance[best] > 1e-6:
            raise InputError(f"the matrix is not an element of {self.name}.")
        return best

    @cached_property
    def product_table(self) -> np.ndarray:
        return np.array([[self.index(a @ b) for b in self.matrices] for a in self.matrices])

    @cached_property
    def inverse(self) -> np.ndarray:
        return np.array([self.index(a.T) for a in self.matrices])

    def representation(self, spec: str) -> Representation:
        return _representation(self, spec.replace(" ", ""))

    def decompose(self, value) -> dict[str, int]:
        value = np.asarray(value)
        character = np.trace(value, axis1=1, axis2=2) if value.ndim == 3 else value
        result = {}
        for name, irrep in self.irreps.items():
            m = round(float(irrep.character @ character / (irrep.character @ irrep.character)))
            if m:
                result[name] = m
        return result

    def intertwiners(self, rep_in, rep_out) -> np.ndarray:
        d_in, d_out = rep_in.shape[-1], rep_out.shape[-1]
        projector = np.einsum("gab,gcd->acbd", rep_out, rep_in).reshape(d_out * d_in, -1)
        projector = projector / 1.0
        return _range(projector / self.order).reshape(-1, d_out, d_in)

    def clebsch_gordan(self, a: str, b: str, c: str) -> np.ndarray:
        A, B, C = (self.irreps[x].matrices for x in (a, b, c))
        product = np.einsum("gij,gkl->gikjl", A, B).reshape(self.order, A.shape[1] * B.shape[1], -1)
        found = self.intertwiners(product, C) * np.sqrt(C.shape[1])
        return found.reshape(-1, C.shape[1], A.shape[1], B.shape[1])


def _range(projector: np.ndarray) -> np.ndarray:
    rows, work = [], projector.copy()
    for column in range(projector.shape[1]):
        v = projector[:, column].copy()
        for _ in range(2):
            for row in rows:
                v -= (row @ v) * row
        norm = np.linalg.norm(v)
        if norm > 1e-8:
            v /= norm
            rows.append(v * np.sign(v[np.abs(v) > 1e-8][0]))
    return np.array(rows).reshape(-1, projector.shape[1])


@lru_cache(maxsize=1024)
def _representation(group: FiniteGroup, spec: str) -> Representation:
    blocks, parts = [], []
    for term in spec.split("+"):
        match = re.fullmatch(r"(?:(\d+)x)?(\w+'*)", term)
        if match is None:
            raise InputError(f"{spec!r} is no representation; write for example '2xA1+B1'.")
        count, name = int(match[1] or 1), match[2]
        if name == "vector":
            m = group.matrices
        elif name == "pseudovector":
            m = group.matrices * np.linalg.det(group.matrices)[:, None, None]
        elif name in group.irreps:
            m = group.irreps[name].matrices
        else:
            raise unknown(f"irrep of {group.name}", name, [*group.irreps, "vector", "pseudovector"])
        blocks.append((count, name, m.shape[-1]))
        parts += [m] * count
    dim = sum(p.shape[-1] for p in parts)
    matrices, start = np.zeros((group.order, dim, dim)), 0
    for p in parts:
        stop = start + p.shape[-1]
        matrices[:, start:stop, start:stop] = p
        start = stop
    return Representation(spec, tuple(blocks), matrices)
