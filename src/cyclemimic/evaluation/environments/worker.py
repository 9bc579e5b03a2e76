# SPDX-License-Identifier: Apache-2.0
"""A process that hosts simulated environments, and carries out what is asked of them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue

import numpy as np

from cyclemimic.evaluation.environments.environment import Environment
from cyclemimic.evaluation.environments.simulator import SimulatorError, UnfitEnvironment

# A worker that says nothing for so long is taken for dead; a request takes a second or two.
TIMEOUT_S = 120.0
# So long it may take to leave.
LEAVE_S = 5.0


class WorkerDied(RuntimeError):
    """The process is gone, or does not answer."""


@dataclass(frozen=True)
class Reset:
    """
    Put the environment in `slot` to work on `task`, at variation `initial_state`; for the `repeats`-th time again, where
    workers died over it.
    """

    slot: int
    task: str
    initial_state: int
    filmed: bool = False
    repeats: int = 0


@dataclass(frozen=True, eq=False)
class Act:
    """Carry out `actions`, `(n, action_dim)`, in `slot`, up to success. After the `last` ones nobody looks any more."""

    slot: int
    actions: np.ndarray
    last: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """
    What came of a request: the camera image now (`None` when the trial is over), the films' new frames, and the robot's
    state where it was asked for. After a `repeated` reset, what the trial had done before does not count.
    """

    slot: int
    image: np.ndarray | None
    instruction: str
    success: bool = False
    num_steps: int = 0
    frames: Sequence[np.ndarray] = ()
    robot_state: np.ndarray | None = None
    repeated: bool = False


class EnvironmentWorker:
    """
    A process with environments in numbered slots. A context manager; the process ends with the block, or with its parent.

    Args:
        make_environment (`Callable`): Task → [`Environment`]; must be importable in a new process.
        film_every (`int`): Steps between two frames of a film.
        timeout_s (`float`, *optional*, defaults to 120): Silence after which the process is given up.
        use_robot_state (`bool`, *optional*, defaults to `False`): Whether to read the environments' `state`.
    """

    def __init__(
        self,
        make_environment: Callable[[str], Environment],
        film_every: int,
        timeout_s: float = TIMEOUT_S,
        use_robot_state: bool = False,
    ) -> None:
        # Not forked: neither OpenGL nor torch survives a fork.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._timeout_s = timeout_s
        settings = (theirs, make_environment, film_every, use_robot_state)
        self._process = context.Process(target=_serve, args=settings, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> EnvironmentWorker:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()
        self.end(LEAVE_S)

    def leave(self) -> None:
        """Lets the process go, which ends by itself when it has done what it was asked."""
        self._connection.close()

    def end(self, timeout_s: float) -> None:
        """Waits so long for the process that was let go, then ends it."""
        self._process.join(timeout=max(0.0, timeout_s))
        self.kill()

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        self._connection.close()
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def send(self, requests: Sequence[Reset | Act]) -> None:
        """Asks for something in some of the slots, whatever is still to be received; `receive` must follow, and says if
        the process died."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(requests)

    def receive(self) -> list[Outcome]:
        """What came of the last requests, in their order.

        Raises:
            WorkerDied: the process died, or is silent.
            RuntimeError: its environment failed.
            SimulatorError: the simulator cannot run.
            UnfitEnvironment: its environment does not give what was asked for.
        """
        try:
            if not self._connection.poll(self._timeout_s):
                raise WorkerDied(
                    f"a simulator process has been silent for {self._timeout_s:g} s (`timeout_s`, if it needs longer)"
                )
            reply = self._connection.recv()
        # Killed between two answers, or within one.
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _death(self) -> WorkerDied:
        self._process.join(timeout=1)
        return WorkerDied(f"a simulator process died (exit code {self._process.exitcode})")


def _serve(
    connection: Connection, make_environment: Callable[[str], Environment], film_every: int, use_robot_state: bool
) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent answers it, and closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    batches: SimpleQueue[Sequence[Reset | Act] | None] = SimpleQueue()
    # Requests are taken in while outcomes are on their way out: both may be more than the pipe holds, and the parent, which
    # sends before it reads, would wait for this process as this process for it.
    threading.Thread(target=_take_in, args=(connection, batches), daemon=True).start()
    slots: dict[int, _Slot] = {}
    try:
        while (batch := batches.get()) is not None:
            outcomes = []
            for request in batch:
                slot = slots.setdefault(request.slot, _Slot(make_environment, film_every, use_robot_state))
                outcomes.append(slot.reset(request) if isinstance(request, Reset) else slot.act(request))
            if not _reply(connection, outcomes):
                break
    except Exception as error:
        _reply(connection, _portable(error))
    except SystemExit as error:
        # The code of an environment that means to end the program. In a new process it would do the same.
        _reply(
            connection, UnfitEnvironment(f"`env` must not end its process, got sys.exit({error.code!r}) of its code.")
        )
    finally:
        for slot in slots.values():
            slot.close()


def _take_in(connection: Connection, batches: SimpleQueue[Sequence[Reset | Act] | None]) -> None:
    """Puts what the parent sends into the queue, and `None` when the parent has left."""
    try:
        while True:
            batches.put(connection.recv())
    except (EOFError, OSError):
        pass
    finally:
        batches.put(None)


def _reply(connection: Connection, reply: list[Outcome] | Exception) -> bool:
    """Whether the parent is still there."""
    try:
        connection.send(reply)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _portable(error: Exception) -> Exception:
    """An error that survives the way to the parent: ours as it is, others by their text and where they were raised."""
    if isinstance(error, SimulatorError | UnfitEnvironment):
        return error
    portable = RuntimeError(f"a simulated environment failed: {type(error).__name__}: {error}")
    portable.add_note(traceback.format_exc())
    return portable


class _Slot:
    """One environment at a time, kept from trial to trial while the task stays."""

    def __init__(self, make_environment: Callable[[str], Environment], film_every: int, use_robot_state: bool) -> None:
        self._make_environment, self._film_every = make_environment, film_every
        self._use_robot_state = use_robot_state
        # There is one while there is a task.
        self._environment: Environment
        self._task: str | None = None
        self._filmed, self._num_steps = False, 0
        # The scene as it is, where it has been rendered.
        self._view: np.ndarray | None = None

    def reset(self, request: Reset) -> Outcome:
        if request.task != self._task:
            self.close()
            self._environment, self._task = self._make_environment(request.task), request.task
        self._environment.reset(request.initial_state)
        self._filmed, self._num_steps, self._view = request.filmed, 0, None
        image, instruction = self._look(), self._environment.instruction
        repeated = request.repeats > 0
        return Outcome(request.slot, image, instruction, robot_state=self._robot_state(), repeated=repeated)

    def act(self, request: Act) -> Outcome:
        success: bool | None = False
        frames, before = [], self._num_steps
        for action in request.actions:
            if self._filmed and self._num_steps % self._film_every == 0:
                frames.append(self._look())
            said = self._environment.step(action)
            self._view = None
            # A comparison of NumPy's numbers gives a truth value of its own.
            success = None if said is None else bool(said)
            self._num_steps += 1
            if success is not False:
                break
        is_over = success is not False or request.last
        image = self._look() if self._filmed or not is_over else None
        if is_over and image is not None:
            frames.append(image)
        num_steps = self._num_steps - before
        image, instruction = None if is_over else image, self._environment.instruction
        return Outcome(request.slot, image, instruction, bool(success), num_steps, frames, self._robot_state())

    def _look(self) -> np.ndarray:
        if self._view is None:
            self._view = self._environment.render()
        return self._view

    def _robot_state(self) -> np.ndarray | None:
        return self._environment.state if self._use_robot_state else None

    def close(self) -> None:
        if self._task is not None:
            self._environment.close()
            del self._environment
        self._task = None
