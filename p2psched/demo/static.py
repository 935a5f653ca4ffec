"""A cluster of the demo whose ledger is carried by raftos: its group is known before it starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from p2psched.demo.cluster import START, LocalCluster, LocalPeer
from p2psched.net.auth import new_secret


class StaticCluster(LocalCluster):
    def __init__(
        self,
        folder: Path,
        *,
        names: Sequence[str],
        command: Sequence[str] = START,
        environ: Mapping[str, str],
    ) -> None:
        """`names`: of all peers that will be started."""
        super().__init__(folder, command=command, environ=environ)
        self.address_of = dict(zip(names, free_addresses(len(names)), strict=True))
        self._secret = folder / "secret"
        descriptor = os.open(self._secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret().hex())

    def start(self, name: str, *, slots: int, options: Sequence[str] = ()) -> LocalPeer:
        assert name not in self.peers, f"{name} was started before: restart it"
        peer = self.peers[name] = LocalPeer(name, self.folder, slots=slots)
        peer.address = self.address_of[name]
        group = [word for address in self.address_of.values() for word in ("--group", address)]
        secret = ["--secret-file", str(self._secret)]
        self._spawn(peer, ["--ledger", "raftos", *group, *secret, *options])
        return peer


def free_addresses(count: int) -> list[str]:
    """Of loopback: nobody takes connections or datagrams there now."""
    addresses: list[str] = []
    with ExitStack() as held:
        while len(addresses) < count:
            stream = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            datagrams = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            stream.bind(("127.0.0.1", 0))
            host, port = stream.getsockname()
            try:
                datagrams.bind((host, port))
            except OSError:
                continue
            addresses.append(f"{host}:{port}")
    return addresses
