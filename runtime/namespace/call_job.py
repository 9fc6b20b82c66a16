"""The callee's side of a call: an event that runs a method of its target and answers the caller."""

from __future__ import annotations

from typing import Any

from runtime.actor.breaking import copy_error
from runtime.actor.input_gate import Work
from runtime.actor.result import Result
from runtime.namespace.call import Call
from runtime.namespace.container import Container


class CallJob(Work):
    """A call that has a place in its target's mailbox, or is on its way there.

    Args:
        call: who gets the answer; without, an error is only logged.
    """

    __slots__ = ("_args", "_call", "_kwargs", "_name", "_place", "caller", "logs")

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call | None) -> None:
        self._name = name
        self._args = args
        self._kwargs = kwargs
        self._call = call
        self._place: Container | None = None  # whose mailbox has a place reserved for it
        self.caller = None if call is None else call._frame
        self.logs = call is None

    @property
    def label(self) -> str:
        """The method's name."""
        return self._name

    def check_caller(self) -> None:
        """Refuse to begin for a caller whose instance was destroyed meanwhile; one that was evicted had its answers.

        What has begun goes on to its end. (Observed on workerd.)

        Raises:
            Exception: what destroyed it.
        """
        caller = self.caller
        if caller is not None and caller.cell.incarnation.error is not None:
            raise copy_error(caller.cell.incarnation.error)

    def explain(self, error: Exception) -> Exception:
        """A copy that says where it was raised."""
        copy = copy_error(error)
        copy.__cause__ = None
        if not getattr(copy, "remote", False):
            copy.remote = True  # type: ignore[attr-defined]
            copy.add_note(f"in {self.where}")
        if self.logs:
            copy.__traceback__ = error.__traceback__
        return copy

    @property
    def where(self) -> str:
        """Target and method."""
        raise NotImplementedError

    def take(self) -> None:
        """Give the place in the mailbox back."""
        place, self._place = self._place, None
        if place is not None:
            place.calls -= 1

    def done(self, result: Result) -> None:
        """Answer."""
        call, self._call = self._call, None
        if call is not None:
            call._answer(result)
