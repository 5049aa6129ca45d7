"""A processor that keeps values: how many studies there are of each phase."""

from __future__ import annotations

from axe import Event, Reject, State, hookimpl


class StudyCounter:
    """Counts studies by phase."""

    topics = ("studies/study_created",)
    version = 1

    @hookimpl
    def on_event(self, event: Event, state: State) -> None:
        """Count one study; one without a phase goes to the dead letters."""
        phase = event.value["phase"]
        if phase is None:
            raise Reject("a study without a phase")
        state[phase] = state.get(phase, 0) + 1
