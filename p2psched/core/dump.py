"""The state in a canonical form, for referees that compare states."""

from __future__ import annotations

from p2psched.core.state import LedgerState


def dump(s: LedgerState) -> object:
    return [
        (s.applied_index, s.command_index, s.stamp_ms, s.results_refused),
        (s.result_bytes, list(s.ended), len(s.forgotten), s.generation_ms),
        list(s.webhooks.values()),
        (list(s.callers.items()), list(s.acted.items()), list(s.leases.items())),
        (list(s.keys.values()), s.key_order, s.key_bytes, s.key_marks),
        (list(s.lock_claims.values()), s.lock_token),
        (list(s.queue_heads.items()), list(s.queue_items.items()), s.last_receipt),
        list(s.queue_claims.items()),
        [(parent, list(found)) for parent, found in sorted(s.lineage.children.items())],
        [
            (
                (job.id, job.state, job.waiting, job.orphaned, job.succeeded, job.failed),
                (job.cancelled, job.losses, job.failures, job.segments),
                (job.estimate_us, sorted(job.finished_by.items()), job.results_refused),
                [(g.grant, g.peer, g.incarnation, g.tasks, g.moves) for g in job.grants.values()],
                (list(job.blobs.values()), job.lost, job.result_bytes, job.pinned),
                (job.deaths, sorted(job.killed.items()), job.spaceless, job.moved, job.moved_count),
                (sorted(job.ends.items()), sorted(job.later.items()), job.stopped),
                (sorted(job.avoids.items()), job.demoted, list(job.alerted), job.warned),
                (job.resumed, job.resumed_count),
                (job.sunk, sorted(job.sunk_at.items())),
                [(g.grant, g.peer, g.tasks, g.died, g.alone) for g in job.unknown.values()],
                [(g.grant, g.peer, g.incarnation, g.tasks) for g in job.backups.values()],
                (job.thinned, job.speculated, job.backups_won, job.preempted),
                (list(job.awaits), job.aborted_by),
            )
            for job in s.jobs.values()
        ],
        [
            (
                (row.info, row.live, row.owned, row.load_us, row.suspects, row.stopped),
                (row.alone, row.drain, row.offers, row.gpus, row.memory_mib),
            )
            for row in s.peers.values()
        ],
    ]
