"""The few BLAS and LAPACK routines behind a spectrum, called without Python's lock.

SciPy's wrappers (f2py) hold the lock while a routine runs, so that two threads take turns. Here its
routines are called through ctypes, which lets go of the lock, and two threads do two matrices at
once. Matrices are in Fortran order, their lower triangle is used, and no argument is checked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

_SCALARS = {'float32': ('s', ctypes.c_float), 'float64': ('d', ctypes.c_double)}
_BLOCK = 64  # columns that sytrd may reduce at a time
_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ('PyCapsule_GetName', ctypes.pythonapi)
)
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ('PyCapsule_GetPointer', ctypes.pythonapi)
)


@cache
def _routine(name: str, n_args: int) -> Callable[..., None]:
    """A routine of the libraries that SciPy brings for Cython, at a stable address and 32 bits."""
    capi = {**cython_blas.__pyx_capi__, **cython_lapack.__pyx_capi__}
    pointer = _capsule_pointer(capi[name], _capsule_name(capi[name]))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_args)(pointer)


def _call(name: str, dtype: np.dtype, *args: Any) -> None:
    """Call by reference, as Fortran does: letters, whole numbers, numbers of ``dtype``, arrays."""
    prefix, scalar = _SCALARS[dtype.name]
    given: list[Any] = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            given.append(arg.ctypes.data)
        elif isinstance(arg, float):
            given.append(ctypes.byref(scalar(arg)))
        elif isinstance(arg, int):
            given.append(ctypes.byref(ctypes.c_int(arg)))
        else:
            given.append(arg)
    _routine(prefix + name, len(args))(*given)


def _lapack(name: str, dtype: np.dtype, *args: Any) -> None:
    info = ctypes.c_int(0)
    _call(name, dtype, *args, ctypes.byref(info))
    if info.value:
        raise ArithmeticError(f'LAPACK {name} returned {info.value}')


def add_gram(gram: np.ndarray, block: np.ndarray, wide: bool) -> None:
    """Add ``block @ block.T`` (``wide``) or ``block.T @ block`` to the lower triangle of ``gram``.

    Args:
        gram: ``(n, n)`` in Fortran order, float32 or float64.
        block: Of the same type; each row in one piece, the rows any distance apart.
        wide: Whether the rows are the n ones.
    """
    rows, columns = block.shape
    n, other = (rows, columns) if wide else (columns, rows)
    # Row by row in memory is the transpose in Fortran order.
    form = b'T' if wide else b'N'
    apart = max(block.strides[0] // block.itemsize, columns)
    _call('syrk', gram.dtype, b'L', form, n, other, 1.0, block, apart, 1.0, gram, n)


def reflect(gram: np.ndarray, unit: np.ndarray) -> None:
    """``gram = H @ gram @ H``, H the Householder reflection that turns ``unit`` into +e1 or -e1."""
    n, dtype = len(gram), gram.dtype
    u = unit.copy()
    u[0] += np.copysign(u.dtype.type(1), u[0])
    beta = 2 / np.dot(u, u)
    p = np.empty_like(u)
    _call('symv', dtype, b'L', n, float(beta), gram, n, u, 1, 0.0, p, 1)
    q = p - (beta / 2) * np.dot(p, u) * u
    _call('syr2', dtype, b'L', n, -1.0, u, 1, q, 1, gram, n)


def tridiagonal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of the tridiagonal form, float64; the first basis vector stays.

    Args:
        gram: ``(n, n)`` in Fortran order; overwritten.

    Raises:
        ArithmeticError: LAPACK gave up.
    """
    n, dtype = len(gram), gram.dtype
    d, e, tau = np.empty((3, n), dtype)
    work = np.empty(n * _BLOCK, dtype)
    _lapack('sytrd', dtype, b'L', n, gram, n, d, e, tau, work, len(work))
    return d.astype(np.float64), e[: n - 1].astype(np.float64)


def largest(d: np.ndarray, e: np.ndarray, k: int) -> np.ndarray:
    """The k largest eigenvalues of a symmetric tridiagonal matrix, ascending.

    Args:
        d: Diagonal, n of them, float64.
        e: Off-diagonal, n - 1 of them, float64.
        k: How many; n at most.

    Raises:
        ArithmeticError: LAPACK gave up.
    """
    n = len(d)
    if 4 * k >= n:  # the QL iteration, which only gives all of them
        values = d.copy()
        _lapack('sterf', d.dtype, n, values, e.copy())
        return values[-k:]
    values, work = np.empty(n), np.empty(4 * n)
    where, iwork = np.empty((2, n), np.intc), np.empty(3 * n, np.intc)
    found, splits = (ctypes.c_int(0) for _ in range(2))
    _lapack(
        'stebz', d.dtype, b'I', b'E', n, 0.0, 0.0, n - k + 1, n, 0.0, d, e, ctypes.byref(found),
        ctypes.byref(splits), values, where[0], where[1], work, iwork,
    )  # fmt: skip
    return values[:k]
