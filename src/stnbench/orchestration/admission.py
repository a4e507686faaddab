"""Whether a trial's memory fits beside those that run on its device: pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stnbench.engines.base import Slot
from stnbench.engines.calibrate import CONTEXT_MIB

HEADROOM = 0.95
"""The share of a device's memory that trials may fill: the peaks of earlier runs are no promise."""


@dataclass(slots=True)
class Admission:
    """Knows how much memory each device has, and learns how much each configuration's trials need.

    A trial of which nothing is known counts as what is expected of it, else as its slot's even share of the device.
    One that is alone on its device is always let in: whether it fits shows when it runs.
    """

    slots: Sequence[Slot]
    _peak_mib: dict[str, float] = field(default_factory=dict)
    _expected_mib: dict[str, float] = field(default_factory=dict)

    def learn(self, peak_mib: Mapping[str, float]) -> None:
        """Take note of the peaks of trials, by trial; the highest counts."""
        for trial_id, peak in peak_mib.items():
            self._peak_mib[trial_id] = max(peak, self._peak_mib.get(trial_id, 0.0))

    def expect(self, peak_mib: Mapping[str, float]) -> None:
        """Take note of what trials should need; what trials of their configuration did need counts for more."""
        self._expected_mib |= peak_mib

    def admits(self, trial_id: str, slot: Slot, neighbours: Iterable[str]) -> bool:
        """Whether the trial fits into a free slot beside those that run on the same device."""
        beside = list(neighbours)
        if slot.memory_mib is None or not beside:
            return True
        slots = sum(other.device == slot.device for other in self.slots)
        share = slot.memory_mib / slots
        names = (trial_id, *beside)
        needed = sum(self._peak_mib.get(name, self._expected_mib.get(name, share)) for name in names)
        room = HEADROOM * slot.memory_mib - (slots * CONTEXT_MIB if slot.is_cuda else 0.0)
        is_known = all(name in self._peak_mib or name in self._expected_mib for name in names)
        return needed <= (room if is_known and slot.is_cuda else max(room, share * len(names)))
