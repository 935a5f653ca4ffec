"""What the machine's network cards carry. Bridges and tunnels would count the same bytes again, so
where there are devices of hardware only these count."""

from __future__ import annotations

from typing import Final

from p2psched.observe.readings import Roots, read_text

_RECEIVED, _SENT = 0, 8  # fields of /proc/net/dev
_NOT_CARDS: Final = ("lo", "veth", "docker", "br-", "virbr", "ifb", "tun", "tap", "dummy", "wg")


class Traffic:
    def __init__(self, roots: Roots) -> None:
        self._path = roots.proc / "net/dev"
        self._cards = roots.sys / "class/net"
        self._is_card: dict[str, bool] = {}  # asked once of each
        self._before: tuple[int, int, int] | None = None
        self.received = 0  # KiB/s between the last two looks
        self.sent = 0

    def look(self, now_ms: int) -> None:
        counts = {}
        for line in read_text(self._path).splitlines():
            name, colon, rest = line.partition(":")
            words = rest.split()
            if colon and len(words) > _SENT:
                counts[name.strip()] = int(words[_RECEIVED]), int(words[_SENT])
        used = [counts[name] for name in self._chosen(counts)]
        received, sent = (sum(one[i] for one in used) for i in (0, 1))
        before, self._before = self._before, (now_ms, received, sent)
        if before is None or now_ms <= before[0]:
            return
        passed_ms = now_ms - before[0]
        # A card that went away takes its bytes along.
        self.received = max(0, received - before[1]) * 1000 // passed_ms // 1024
        self.sent = max(0, sent - before[2]) * 1000 // passed_ms // 1024

    def _chosen(self, names: dict[str, tuple[int, int]]) -> list[str]:
        self._is_card = {
            name: self._is_card.get(name, (self._cards / name / "device").exists())
            for name in names
        }
        cards = [name for name, is_card in self._is_card.items() if is_card]
        return cards or [name for name in names if not name.startswith(_NOT_CARDS)]
