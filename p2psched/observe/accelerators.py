"""Graphics processors and other accelerators, by the nodes that their drivers make. What can be
opened counts: a container sees those it was given. How busy one is, only some drivers say in a
file; no tool is started to find out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from p2psched.observe.readings import Roots, names_in, read_int, read_text

_NVIDIA: Final = re.compile(r"nvidia\d+")
_RENDER: Final = re.compile(r"renderD\d+")
# Vendors whose render nodes compute; those of Nvidia are counted by its own driver's, or nouveau.
_COMPUTE: Final = {"0x1002": "amd", "0x8086": "intel", "0x10de": "nvidia"}
_BUSY_PERCENT: Final = 50
# Hailo, Coral, Ascend, Inferentia, TPU; and `accel/` is the kernel's own class for them.
_NPU: Final = re.compile(r"(?:hailo|apex_|davinci|neuron|accel)\d+")
_ACCEL: Final = re.compile(r"accel\d+")


class Accelerators:
    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._busy_paths: list[Path] = []
        self.gpus = 0
        self.npus = 0  # accelerators of other kinds
        self.gpus_busy = 0  # as far as drivers say

    def find(self) -> None:
        """What there is. It seldom changes."""
        nodes = names_in(self._roots.dev)
        nvidia = sum(_NVIDIA.fullmatch(name) is not None for name in nodes)
        if not nvidia and "nvidiactl" not in nodes:  # nodes are made when first they are used
            nvidia = len(names_in(self._roots.proc / "driver/nvidia/gpus"))
        self._busy_paths = []
        others = 0
        drm = self._roots.sys / "class/drm"
        for name in names_in(drm):
            vendor = _COMPUTE.get(read_text(drm / name / "device/vendor").strip())
            if not _RENDER.fullmatch(name) or not (self._roots.dev / "dri" / name).exists():
                continue
            if vendor is None or (vendor == "nvidia" and nvidia):
                continue
            others += 1
            self._busy_paths.append(drm / name / "device/gpu_busy_percent")
        self.gpus = nvidia + others
        npus = [name for name in nodes if _NPU.fullmatch(name)]
        inner = [n for n in names_in(self._roots.dev / "accel") if _ACCEL.fullmatch(n)]
        self.npus = len(npus) + len(inner)

    def look(self) -> None:
        self.gpus_busy = sum((read_int(path) or 0) >= _BUSY_PERCENT for path in self._busy_paths)
