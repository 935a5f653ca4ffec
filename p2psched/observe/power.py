"""Battery, mains and the hottest sensor, where a machine has such."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from p2psched.observe.readings import Roots, names_in, read_int, read_text

_SANE_CELSIUS: Final = range(1, 150)  # others are sensors that are not there
_MAINS: Final = ("Mains", "USB", "Wireless")


class Power:
    def __init__(self, roots: Roots) -> None:
        self._supplies = roots.sys / "class/power_supply"
        self._zones = roots.sys / "class/thermal"
        self._chips = roots.sys / "class/hwmon"
        self._sensors: list[Path] | None = None
        self.battery = -1  # per cent; -1: it has none
        self.mains = True
        self.temperature = -1  # degrees Celsius; -1: no sensor

    def look(self) -> None:
        self._look_at_supplies()
        if self._sensors is None:
            self._sensors = self._find_sensors()
        found = [round((read_int(path) or 0) / 1000) for path in self._sensors]
        self.temperature = max((t for t in found if t in _SANE_CELSIUS), default=-1)

    def _look_at_supplies(self) -> None:
        charges, plugs, discharges = [], [], False
        for name in names_in(self._supplies):
            folder = self._supplies / name
            if read_text(folder / "scope").strip() == "Device":
                continue  # of a mouse, or of headphones
            kind = read_text(folder / "type").strip()
            charge = read_int(folder / "capacity")
            if kind in {"Battery", "UPS"} and charge is not None and 0 <= charge <= 100:
                charges.append(charge)
                discharges |= read_text(folder / "status").strip() == "Discharging"
            elif kind in _MAINS:
                plugs.append(read_int(folder / "online") == 1)
        self.battery = sum(charges) // len(charges) if charges else -1
        self.mains = not charges or (any(plugs) if plugs else not discharges)

    def _find_sensors(self) -> list[Path]:
        zones = [
            self._zones / name / "temp"
            for name in names_in(self._zones)
            if name.startswith("thermal_zone")
        ]
        return zones or [
            self._chips / chip / name
            for chip in names_in(self._chips)
            for name in names_in(self._chips / chip)
            if name.startswith("temp") and name.endswith("_input")
        ]
