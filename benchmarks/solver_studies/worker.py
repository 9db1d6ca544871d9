"""A process that runs solvers, so that one that is slow, or dies, stops nothing else."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from solver_studies.games import Instance
from solver_studies.peers import named

SETUP = 300.0
"""Seconds for what is not timed: imports, compilation, making the game."""
REPEATS, REPEATED = 20, 0.5
"""A quick call is timed up to so many times, within so many seconds; the shortest counts."""
MEMORY = 0.8
"""Share of the machine's memory that a solver may use."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Result:
    """What became of a call: an answer with its time, or why there is none."""

    status: str
    """``"answered"``, ``"over time"``, ``"died"``, or ``"refused"`` with the words in `reason`."""
    reason: str = ""
    seconds: float = np.nan
    inside: float = np.nan
    """Seconds inside the solver alone, where it tells."""
    memory: float = np.nan
    """Largest memory of the process so far, in bytes."""
    log_policy: np.ndarray | None = None


class Worker:
    """Runs solvers one call at a time, in one thread on one core or in as many threads as they like."""

    def __init__(self, one_thread: bool) -> None:
        self.one_thread = one_thread
        self.process: Any = None
        self.connection: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.one_thread), daemon=True)
        with _environment(dict.fromkeys(THREADS, "1") if self.one_thread else {}):
            self.process.start()
        other.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None

    def ask(self, solver: str, instance: Instance, budget: float) -> Result:
        """Return a solver's answer if it takes at most `budget` seconds; a process that is late is killed."""
        if self.process is None:
            self.start()
        try:
            self.connection.send((solver, instance))
            if not self.connection.poll(SETUP):
                self.stop()
                return Result("died", f"not ready after {SETUP:g} s")
            self.connection.recv()
            if self.connection.poll(budget + REPEATED):
                result = self.connection.recv()
                return Result("over time") if result.seconds > budget else result
            self.stop()
            return Result("over time")
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self.stop()
            return Result("died", f"the process ended with code {code}, perhaps out of memory")


@contextmanager
def _environment(variables: dict[str, str]) -> Any:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, one_thread: bool) -> None:
    """Answer until the other side is gone."""
    import resource

    with suppress(OSError, ValueError, AttributeError):
        most = int(MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if one_thread and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warm: set[tuple[str, bool]] = set()
    with suppress(EOFError, ConnectionError):
        while True:
            name, instance = connection.recv()
            solver = named(name)
            if (name, instance.beta == 0) not in warm:
                warm.add((name, instance.beta == 0))
                with suppress(Exception):  # if it fails here it fails again below
                    solver(Instance("intransitive", 3, 1.0 if instance.beta > 0 else 0.0).make())
            begun = time.perf_counter()
            try:
                game = instance.make()
            except ValueError as error:
                connection.send("ready")
                connection.send(Result("refused", str(error)))
                continue
            making = time.perf_counter() - begun
            connection.send("ready")
            connection.send(_timed(solver, game, instance, making))


def _timed(solver: Any, game: Any, instance: Instance, making: float) -> Result:
    """Time a solver, each time on a game made anew: what it finds out about one is no use to it in the next."""
    import resource

    times: list[float] = []
    insides: list[float] = []
    try:
        while not times or (len(times) < REPEATS and sum(times) + times[0] + len(times) * making < REPEATED):
            game = instance.make() if times else game
            begun = time.perf_counter()
            log_policy, inside = solver(game)
            times.append(time.perf_counter() - begun)
            insides.append(inside)
    except Exception as error:  # a peer may raise anything: the table says what
        return Result("refused", f"{type(error).__name__}: {error}".splitlines()[0][:200])
    memory = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Result("answered", "", min(times), min(insides), memory, log_policy)
