"""Point groups by name."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from latticezoo.symmetry.errors import unknown
from latticezoo.symmetry.groups import FiniteGroup


def _rot(w):
    return np.array([[np.cos(w), -np.sin(w)], [np.sin(w), np.cos(w)]])


def _ref(w):
    return np.array([[np.cos(w), np.sin(w)], [np.sin(w), -np.cos(w)]])


@lru_cache
def D(n: int) -> FiniteGroup:
    if n == 1:
        m = np.array([[[1.0]], [[-1.0]]])
        return FiniteGroup("D1", m, {"A1": (m**2, "real"), "A2": (m, "real")}, ["E", "σ"])
    start = np.pi if n == 3 else 0.0
    w = 2 * np.pi * np.arange(n) / n
    v = start + w
    matrices = np.array([_rot(x) for x in w] + [_ref(x) for x in v])
    det = np.r_[np.ones(n), -np.ones(n)]
    irreps = {"A1": np.ones(2 * n), "A2": det}
    if n % 2 == 0:
        j = (-1.0) ** np.arange(n)
        irreps |= {"B1": np.r_[j, j], "B2": np.r_[j, -j]}
    table = {k: (x[:, None, None], "real") for k, x in irreps.items()}
    top = (n - 1) // 2
    for l in range(1, top + 1):
        name = "E" if top == 1 else f"E{l}"
        e = np.array([_rot(l * x) for x in w] + [_ref(l * x) for x in v])
        table[name] = (e, "real")
    names = ["E"] + [f"C{n}^{k}" for k in range(1, n)] + [f"σ{k}" for k in range(n)]
    return FiniteGroup(f"D{n}", np.round(matrices, 15), table, names)


@lru_cache
def C(n: int) -> FiniteGroup:
    w = 2 * np.pi * np.arange(n) / n
    table = {"A": (np.ones((n, 1, 1)), "real")}
    if n % 2 == 0:
        table["B"] = (((-1.0) ** np.arange(n))[:, None, None], "real")
    top = (n - 1) // 2
    for l in range(1, top + 1):
        table["E" if top == 1 else f"E{l}"] = (np.array([_rot(l * x) for x in w]), "complex")
    names = ["E"] + [f"C{n}^{k}" for k in range(1, n)]
    return FiniteGroup(f"C{n}", np.array([_rot(x) for x in w]), table, names)


def _signed():
    for p in itertools.permutations(range(3)):
        for s in itertools.product([1, -1], repeat=3):
            m = np.zeros((3, 3))
            m[range(3), p] = s
            yield m


def _cubic(name, keep):
    ms = sorted(filter(keep, _signed()), key=lambda m: (-np.trace(m), tuple(-m.ravel())))
    m = np.array(ms)
    p = np.abs(m)
    sign = np.linalg.det(p)[:, None, None]
    basis = np.array([[-1, -1, 2], [np.sqrt(3), -np.sqrt(3), 0]]) / np.sqrt(6)
    e = basis @ p @ basis.T
    return m, p, sign, e


@lru_cache
def Td() -> FiniteGroup:
    m, _, s, e = _cubic("Td", lambda m: m.sum(1).prod() > 0)
    one = np.ones_like(s)
    t = {"A1": one, "A2": s, "E": e, "T1": s * m, "T2": m}
    return FiniteGroup("Td", m, {k: (x, "real") for k, x in t.items()})


@lru_cache
def O() -> FiniteGroup:  # noqa: E743
    m, _, s, e = _cubic("O", lambda m: np.linalg.det(m) > 0)
    one = np.ones_like(s)
    t = {"A1": one, "A2": s, "E": e, "T1": m, "T2": s * m}
    return FiniteGroup("O", m, {k: (x, "real") for k, x in t.items()})


@lru_cache
def Oh() -> FiniteGroup:
    m, _, s, e = _cubic("Oh", lambda m: True)
    d = np.linalg.det(m)[:, None, None]
    q = m * d
    t = {"A1": np.ones_like(s), "A2": s, "E": e, "T1": q, "T2": s * q}
    t = {k + "g": x for k, x in t.items()} | {k + "u": x * d for k, x in t.items()}
    return FiniteGroup("Oh", m, {k: (x, "real") for k, x in t.items()})


@lru_cache
def point_group(name: str) -> FiniteGroup:
    known = {f"C{n}": lambda n=n: C(n) for n in (1, 2, 3, 4, 6)}
    known |= {f"D{n}": lambda n=n: D(n) for n in (1, 2, 3, 4, 6)}
    known |= {"Td": Td, "O": O, "Oh": Oh}
    if name not in known:
        raise unknown("point group", name, known)
    return known[name]()
