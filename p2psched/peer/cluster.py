"""Which cluster a peer belongs to: found one, join one, or come back to one.

The secret comes from `--secret-file`, the data folder, or the record of a local peer of the same
user. It never comes from the command line or the environment.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final

import msgspec

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.commands import PeerInfo
from p2psched.model.config import Config
from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.ids import ClusterId, PeerId, new_id
from p2psched.model.needs import Offers
from p2psched.model.raft import Member
from p2psched.model.version import VERSION
from p2psched.net.address import Address, is_loopback, parse
from p2psched.net.auth import Identity, new_secret
from p2psched.net.dial import connect
from p2psched.net.link import Handlers
from p2psched.observe.accelerators import Accelerators
from p2psched.observe.memory import Memory
from p2psched.observe.readings import Roots
from p2psched.peer.static_group import check_group, cluster_of, group_of
from p2psched.ports.executor import OnExecutorEvent
from p2psched.run.means import Means, Setup
from p2psched.run.pool import WorkerPool
from p2psched.store.blobs import BlobFiles
from p2psched.store.folder import DataFolder, read_secret_file
from p2psched.store.records import Record, list_records

JOIN_PATIENCE_S: Final = 5.0  # for somebody to answer at one of the addresses to join
JOIN_RETRY_S: Final = 0.25


class Belonging(msgspec.Struct, frozen=True):
    cluster: ClusterId
    secret: bytes
    founds: bool  # this peer is the first of a new cluster
    known: dict[PeerId, str]  # peers that were met while joining -> address
    group: tuple[str, ...] = ()  # addresses of all peers, if that is settled for ever


def check_start(config: Config) -> Address:
    """The address to listen at. Raises, before anything is touched, Refused if others could connect
    without protection, and UsageError if nobody would vote in the cluster that this start founds.
    """
    is_new = not (Path(config.data).expanduser() / "identity").exists()
    if config.votes is False and not config.join and is_new:
        raise UsageError(
            "the first peer of a cluster has to vote, for nobody else can: leave out --no-vote, or "
            "name a peer of the cluster to join with --join"
        )
    check_group(config)
    address = parse(config.listen)
    if not config.insecure and not is_loopback(address.host):
        raise Refused(
            f"{address} is reachable from other machines, and connections are not encrypted yet: "
            "listen on 127.0.0.1, or pass --insecure if you trust everybody on that network"
        )
    return address


def advertised(config: Config, listening: Address) -> str:
    """Where others reach this peer. A name stays a name: it is looked up at each dial. Without a
    port it is that of `listening`. Raises UsageError."""
    given = config.advertise
    return str(listening if given is None else parse(given, default_port=listening.port))


async def find_cluster(config: Config, folder: DataFolder, rng: random.Random) -> Belonging:
    """Raises Refused, Unavailable (nobody answers), UsageError (an address is none)."""
    identity = folder.identity
    group = group_of(config, folder)
    if group:
        return _in_group(group, config, folder)
    if config.join:
        return await _join(config, folder)
    if identity.cluster is not None:
        given = config.secret_file
        secret = read_secret_file(Path(given)) if given else folder.read_secret()
        if secret is None:
            raise Refused(
                f"the secret of the cluster is missing from {folder.secret_path}: "
                "pass --secret-file with that of another peer"
            )
        folder.write_secret(secret)
        return Belonging(identity.cluster, secret, folder.is_founding, {})
    if not folder.is_new and config.secret_file is None:
        # Most likely it was told to join and could not: it must not found a cluster by itself now.
        raise Refused(
            f"data folder {folder.path} was left by a start that joined no cluster: pass --join "
            "again, or remove the folder to found a new cluster"
        )
    secret = folder.read_secret()
    if secret is None:
        given = config.secret_file
        secret = read_secret_file(Path(given)) if given else new_secret()
        folder.write_secret(secret)
    cluster = ClusterId(new_id(rng))
    folder.begin_founding(cluster)  # before anybody can hear of it: after a crash it is the same
    return Belonging(cluster, secret, True, {})


def _in_group(group: tuple[str, ...], config: Config, folder: DataFolder) -> Belonging:
    given = config.secret_file
    secret = read_secret_file(Path(given)) if given else folder.read_secret()
    if secret is None:
        raise Refused(
            "all peers of a raftos ledger need the same secret: make one, `openssl rand -hex 32 > "
            "FILE`, and pass it to each with --secret-file"
        )
    folder.write_secret(secret)
    cluster = cluster_of(group)
    folder.set_cluster(cluster)
    return Belonging(cluster, secret, False, {}, group)


async def _join(config: Config, folder: DataFolder) -> Belonging:
    kept = folder.identity.cluster
    secret = _secret_for(config, folder)
    deadline = asyncio.get_running_loop().time() + JOIN_PATIENCE_S
    while True:
        for address in config.join:
            try:
                peer, cluster = await meet(address, secret, kept)
            except Unavailable as error:
                last = error
                continue
            folder.check_cluster(cluster)
            folder.write_secret(secret)
            folder.set_cluster(cluster)
            return Belonging(cluster, secret, False, {peer: str(parse(address))})
        if kept is not None:  # we know the others from before: they may come up later
            return Belonging(kept, secret, False, {})
        if asyncio.get_running_loop().time() >= deadline:
            raise last
        await asyncio.sleep(JOIN_RETRY_S)


async def meet(address: str, secret: bytes, cluster: ClusterId | None) -> tuple[PeerId, ClusterId]:
    """Who answers at an address, proven to know the secret."""
    connection = await connect(
        address,
        identity=Identity(cluster=cluster),
        secret=secret,
        handlers=Handlers(on_message=lambda _connection, _message: None),
    )
    remote = connection.remote
    connection.close()
    await connection.wait_closed()
    assert remote.peer is not None
    assert remote.cluster is not None
    return remote.peer, remote.cluster


def info_of(config: Config, member: Member, incarnation: int, python: str) -> PeerInfo:
    """What this process says of itself. `python`: of its workers."""
    return PeerInfo(
        peer=member.peer,
        incarnation=incarnation,
        name=member.name,
        address=member.address,
        pid=os.getpid(),
        slots=config.slots,
        version=VERSION,
        python=python,
        level=KNOWN_LEVEL,
    )


def pool_of(
    config: Config, folder: DataFolder, files: BlobFiles, *, on_event: OnExecutorEvent
) -> WorkerPool:
    """What runs the tasks of a peer."""
    hidden = [str(folder.path), config.runtime_dir]
    if config.secret_file is not None:
        hidden.append(str(Path(config.secret_file).expanduser().absolute()))
    return WorkerPool(
        slots=config.slots,
        folder=folder.run_path,
        on_event=on_event,
        peer_name=folder.identity.name,
        python=config.python,
        grace_s=config.grace_ms / 1000,
        blobs_folder=files.folder,
        setup=Setup(tuple(hidden), config.cgroups, config.pass_env),
    )


def offers_of(config: Config, means: Means) -> Offers:
    """What this process has for tasks beside slots."""
    roots = Roots()
    accelerators, memory = Accelerators(roots), Memory(roots)
    accelerators.find()
    memory.look()
    return config.offers(
        gpus=accelerators.nvidia, memory_mib=memory.total, sandboxes=means.sandboxes
    )


def record_of(
    info: PeerInfo, folder: DataFolder, config: Config, belonging: Belonging, wall_ms: int
) -> Record:
    """What local commands find this peer by."""
    return Record(
        peer=info.peer,
        cluster=belonging.cluster,
        name=info.name,
        address=info.address,
        pid=info.pid,
        data_folder=str(folder.path),
        secret_path=str(folder.secret_path),
        started_ms=wall_ms,
        embedded=config.embedded,
    )


def _secret_for(config: Config, folder: DataFolder) -> bytes:
    if config.secret_file is not None:
        return read_secret_file(Path(config.secret_file))
    secret = folder.read_secret()
    if secret is not None:
        return secret
    wanted = {str(parse(address)) for address in config.join}
    for record in list_records(Path(config.runtime_dir)):
        if record.address in wanted and Path(record.secret_path).exists():
            return read_secret_file(Path(record.secret_path))
    raise Refused(
        f"the secret of the cluster at {', '.join(config.join)} is not known here: copy the file "
        "`secret` from the data folder of one of its peers and pass it with --secret-file"
    )
