"""What `submit-job --lock|--resource|--queue` means."""

from __future__ import annotations

from p2psched.cli.holds import hold_of
from p2psched.model.hold import Hold


def hold(
    *,
    lock: str | None = None,
    resource: str | None = None,
    queue: str | None = None,
    order_key: str | None = None,
) -> Hold | None:
    return hold_of(
        lock=lock, resource=resource, queue=queue, ordered=queue is not None, order_key=order_key
    )


def test_a_lock_and_a_resource_are_what_clients_take_under_that_name() -> None:
    assert hold(lock="db") == Hold("db")
    assert hold(resource="license:3") == Hold("license", 3)
    assert hold(resource="rack:a:2") == Hold("rack:a", 2)
    assert hold() is None


def test_only_jobs_of_one_queue_and_one_key_are_in_order() -> None:
    assert hold(queue="q") == Hold("queue:q", in_order=True)
    same = [hold(queue="q", order_key=key) for key in ("anna", "anna", "ben")]
    assert same[0] == same[1] == Hold("queue:q/anna", in_order=True)
    names = {found.lock for found in (*same, hold(queue="q"), hold(queue="p")) if found}
    assert len(names) == 4
