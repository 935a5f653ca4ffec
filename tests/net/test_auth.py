"""The opening, both sides, without a socket."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from p2psched.model.errors import P2PSchedError, ProtocolError, Refused, Unavailable
from p2psched.model.ids import ClusterId, PeerId
from p2psched.model.messages import Call, GetStatus, Message
from p2psched.model.opening_messages import Challenge, Goodbye, Hello, Opening, Proof, Welcome
from p2psched.net.auth import ClientOpening, Identity, ServerOpening, Step, new_secret
from tests.net.wire import CLIENT, CLUSTER, PEER_A, SECRET, A, B

OTHER_CLUSTER = ClusterId("d" * 32)


def talk(client: ClientOpening, server: ServerOpening) -> tuple[Step, Step, list[Opening]]:
    """Let both sides speak to the end. The last step of each, and all that was said."""
    client_step, server_step = client.start(), server.start()
    said: list[Opening] = []
    to_server, to_client = list(client_step.send), list(server_step.send)
    while to_server or to_client:
        if to_server:
            message = to_server.pop(0)
            said.append(message)
            server_step = server.on_message(message)
            to_client += server_step.send
        elif client_step.remote is None and client_step.error is None:
            message = to_client.pop(0)
            said.append(message)
            client_step = client.on_message(message)
            to_server += client_step.send
        else:
            said.append(to_client.pop(0))
    return client_step, server_step, said


def challenge_of(server: ServerOpening, hello: Hello) -> Challenge:
    [challenge] = server.on_message(hello).send
    assert isinstance(challenge, Challenge)
    return challenge


def hello_of(client: ClientOpening) -> Hello:
    [hello] = client.start().send
    assert isinstance(hello, Hello)
    return hello


def error_of(step: Step) -> P2PSchedError:
    assert step.error is not None
    assert step.remote is None
    return step.error


@pytest.mark.parametrize("own", [CLIENT, B, Identity(peer=B.peer, address="x:1")])
def test_both_sides_know_each_other_afterwards(own: Identity) -> None:
    client, server, _ = talk(ClientOpening(own, SECRET), ServerOpening(A, SECRET))
    assert server.remote == own
    assert client.remote == Identity(peer=PEER_A, cluster=CLUSTER)
    assert (client.error, server.error) == (None, None)


def test_a_peer_that_knows_no_cluster_yet_can_be_reached() -> None:
    joiner = Identity(peer=PEER_A, address="x:1")
    client, _, _ = talk(ClientOpening(B, SECRET), ServerOpening(joiner, SECRET))
    assert client.remote == Identity(peer=PEER_A, cluster=None)


def test_with_another_secret_the_connecting_side_gives_no_proof() -> None:
    client, server, said = talk(ClientOpening(B, new_secret()), ServerOpening(A, SECRET))
    assert "--secret-file" in str(error_of(client))
    assert "--secret-file" in str(error_of(server))
    assert isinstance(client.error, Refused)
    assert not any(isinstance(message, Proof) for message in said)
    assert said[-1] == Goodbye(code="refused", message="the cluster secret does not match")


@pytest.mark.parametrize("proof", [b"", b"x" * 32, b"\x00" * 33])
def test_a_wrong_proof_gets_one_line(proof: bytes) -> None:
    server = ServerOpening(A, SECRET)
    challenge_of(server, hello_of(ClientOpening(B, SECRET)))
    step = server.on_message(Proof(proof=proof))
    assert step.send == (Goodbye(code="refused", message="the cluster secret does not match"),)
    assert isinstance(step.error, Refused)


def test_a_proof_sent_back_to_where_it_came_from_is_refused() -> None:
    server = ServerOpening(A, SECRET)
    challenge = challenge_of(server, hello_of(ClientOpening(CLIENT, SECRET)))
    assert isinstance(error_of(server.on_message(Proof(proof=challenge.proof))), Refused)


def test_a_peer_is_not_fooled_by_its_own_challenge() -> None:
    """Reflection: who knows no secret lets A answer A's own hello, and gives that answer to A."""
    outgoing = ClientOpening(A, SECRET)
    hello = hello_of(outgoing)
    assert isinstance(error_of(ServerOpening(A, SECRET).on_message(hello)), Refused)
    as_client = msgspec.structs.replace(hello, peer=None, address="", cluster=None)
    challenge = challenge_of(ServerOpening(A, SECRET), as_client)
    step = outgoing.on_message(challenge)
    assert isinstance(error_of(step), Refused)
    assert not any(isinstance(message, Proof) for message in step.send)


def test_a_recorded_opening_cannot_be_played_again() -> None:
    client, first = ClientOpening(B, SECRET), ServerOpening(A, SECRET)
    hello = hello_of(client)
    [proof] = client.on_message(challenge_of(first, hello)).send
    second = ServerOpening(A, SECRET)
    challenge_of(second, hello)
    assert isinstance(error_of(second.on_message(proof)), Refused)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b"x" * 32},
        {"peer": PeerId("e" * 32)},
        {"address": "127.0.0.1:3"},
        {"cluster": None},
        {"cluster": OTHER_CLUSTER},
        {"peer": None},
    ],
)
def test_no_field_of_the_hello_can_be_changed_on_its_way(change: dict[str, object]) -> None:
    client, server = ClientOpening(B, SECRET), ServerOpening(A, SECRET)
    changed = msgspec.structs.replace(hello_of(client), **change)
    assert isinstance(error_of(client.on_message(challenge_of(server, changed))), Refused)


@pytest.mark.parametrize(
    "change",
    [{"nonce": b"x" * 32}, {"peer": PeerId("e" * 32)}, {"cluster": ClusterId("")}],
)
def test_no_field_of_the_challenge_can_be_changed_on_its_way(change: dict[str, object]) -> None:
    client, server = ClientOpening(B, SECRET), ServerOpening(A, SECRET)
    challenge = challenge_of(server, hello_of(client))
    changed = msgspec.structs.replace(challenge, **change)
    assert isinstance(error_of(client.on_message(changed)), Refused)


def test_another_cluster_is_refused_by_name_but_only_after_the_proof() -> None:
    other = dataclasses.replace(B, cluster=OTHER_CLUSTER)
    client, server, said = talk(ClientOpening(other, SECRET), ServerOpening(A, SECRET))
    assert "another cluster" in str(error_of(client))
    assert isinstance(said[-1], Goodbye)
    assert isinstance(server.error, Refused)
    stranger = ServerOpening(A, SECRET)
    challenge_of(stranger, hello_of(ClientOpening(other, new_secret())))
    told = stranger.on_message(Proof(proof=b"x" * 32)).send
    assert told == (Goodbye(code="refused", message="the cluster secret does not match"),)


def test_a_server_refuses_another_cluster_even_if_the_client_does_not_look() -> None:
    client = ClientOpening(dataclasses.replace(B, cluster=OTHER_CLUSTER), SECRET)
    server = ServerOpening(A, SECRET)
    hello = hello_of(client)
    challenge = challenge_of(server, hello)
    lenient = ClientOpening(B, SECRET, nonce=lambda: hello.nonce)
    lenient._hello = hello
    lenient._state = client._state
    [proof] = lenient.on_message(challenge).send
    assert "another cluster" in str(error_of(server.on_message(proof)))


def test_a_peer_does_not_open_a_connection_to_itself() -> None:
    client, server, _ = talk(ClientOpening(A, SECRET), ServerOpening(A, SECRET))
    assert "folder" in str(error_of(client))
    assert isinstance(server.error, Refused)


def test_a_peer_notices_that_its_own_identity_answers() -> None:
    client = ClientOpening(A, SECRET)
    hello = msgspec.structs.replace(hello_of(client), peer=None)
    client._hello = hello  # as if the other side had not looked
    step = client.on_message(challenge_of(ServerOpening(A, SECRET), hello))
    assert "folder" in str(error_of(step))


@pytest.mark.parametrize("version", [0, 2, 2**64 - 1])
def test_another_version_is_refused_by_both_sides(version: int) -> None:
    hello = msgspec.structs.replace(hello_of(ClientOpening(B, SECRET)), version=version)
    assert "version" in str(error_of(ServerOpening(A, SECRET).on_message(hello)))
    client, server = ClientOpening(B, SECRET), ServerOpening(A, SECRET)
    challenge = challenge_of(server, hello_of(client))
    step = client.on_message(msgspec.structs.replace(challenge, version=version))
    assert "version" in str(error_of(step))


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b""},
        {"nonce": b"x" * 33},
        {"peer": PeerId("../x")},
        {"peer": PeerId("")},
        {"cluster": ClusterId("x")},
        {"address": "a" * 3000},
        {"address": "a\n"},
    ],
)
def test_impossible_fields_are_protocol_errors(change: dict[str, object]) -> None:
    hello = msgspec.structs.replace(hello_of(ClientOpening(B, SECRET)), **change)
    assert isinstance(error_of(ServerOpening(A, SECRET).on_message(hello)), ProtocolError)


OUT_OF_TURN: list[Message] = [
    Welcome(),
    Proof(proof=b"x" * 32),
    Call(id=1, body=GetStatus()),
]


@pytest.mark.parametrize("message", OUT_OF_TURN, ids=lambda message: type(message).__name__)
def test_a_message_out_of_turn_ends_the_opening(message: Message) -> None:
    server = ServerOpening(A, SECRET)
    assert isinstance(error_of(server.on_message(message)), ProtocolError)
    again = server.on_message(hello_of(ClientOpening(B, SECRET)))
    assert isinstance(error_of(again), ProtocolError)
    client = ClientOpening(B, SECRET)
    client.start()
    assert isinstance(error_of(client.on_message(message)), ProtocolError)


def test_a_welcome_before_the_servers_proof_is_no_welcome() -> None:
    client = ClientOpening(B, SECRET)
    client.start()
    assert isinstance(error_of(client.on_message(Welcome())), ProtocolError)


def test_a_goodbye_is_cleaned_before_people_read_it() -> None:
    client = ClientOpening(B, SECRET)
    client.start()
    step = client.on_message(Goodbye(code="usage", message="\x1b[2J" + "x" * 1000))
    error = error_of(step)
    assert type(error) is Refused
    assert "\x1b" not in str(error)
    assert len(str(error)) <= 200


def test_a_goodbye_of_a_full_peer_may_be_tried_again() -> None:
    client = ClientOpening(B, SECRET)
    client.start()
    assert isinstance(error_of(client.on_message(Goodbye("unavailable", "full"))), Unavailable)


def test_neither_secret_nor_expected_proof_is_in_what_is_said_or_raised() -> None:
    secret = b"marker-of-the-secret-0123456789ab"
    client, server, said = talk(ClientOpening(B, new_secret()), ServerOpening(A, secret))
    everything = msgspec.msgpack.encode(said) + str((client.error, server.error)).encode()
    assert b"marker" not in everything
    assert len(new_secret()) == 32
    assert new_secret() != new_secret()
