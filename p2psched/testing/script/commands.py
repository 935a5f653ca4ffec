"""The commands that all scripts share: peers, disks, time, messages, and looking at it all.

Each method `do_...` is a command; its text says how it is written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import PeerId
from p2psched.testing.script.errors import ScriptError
from p2psched.testing.script.mail import Letter, links_of
from p2psched.testing.script.stage import BROKEN, TOPICS, A, Stage, Words, member_of
from p2psched.testing.script.words import usual_address

DELIVERIES_MAX: Final = 5_000  # in one `settle`: beyond it the peers never become quiet
ELECTIONS_MAX: Final = 4  # timers that fire until `elect` gives up


class Commands(Stage[A]):
    """What `run` finds, besides what one kind of stage adds."""

    tells_elections = False  # `elect` tells more than who leads in the end

    # --- peers ---

    def do_cluster(self, words: Words) -> None:
        """cluster PEER ...: found a group of these voters, and start them."""
        self._voters = list(words)
        self.do_peer(words)

    def do_peer(self, words: Words) -> None:
        """peer PEER ...: start peers that are not members yet."""
        for name in words:
            if name in self.actors:
                raise ScriptError(f"there is a peer {name!r} already")
            self.actors[name] = self.make(name)
        for name in words:
            self._boot(self.actors[name])

    def _boot(self, actor: A) -> None:
        try:
            actor.boot()
        except P2PSchedError as exc:
            self.say(f"{actor.name} doesn't start: {exc}")
            return
        self.act(actor, actor.sync_if_quick)

    def do_start(self, words: Words) -> None:
        """start PEER ... [at ADDRESS]: start again from what is on the disk."""
        at = words.index("at") if "at" in words else len(words)
        for name in words[:at]:
            actor = self.actor(name)
            if actor.alive:
                raise ScriptError(f"{name} runs already")
            if at < len(words):
                actor.address = words[at + 1]
            self._boot(actor)

    def do_regain(self, words: Words) -> None:
        """regain PEER ...: start with a damaged log, and ask the others for what it lost."""
        for name in words:
            self.actor(name).asks_others = True
        self.do_start(words)

    def do_kill(self, words: Words) -> None:
        """kill PEER ...: the process is gone; what it has written is there."""
        for name in words:
            self.alive(name).die(power_lost=False)

    def do_power_off(self, words: Words) -> None:
        """power-off PEER ... [torn]: what wasn't synced is gone, or half of it is left."""
        names = [name for name in words if name != "torn"]
        for name in names:
            actor = self.alive(name)
            actor.mishap.keeps_half = "torn" in words
            actor.die(power_lost=True)

    def do_pause(self, words: Words) -> None:
        """pause PEER ...: as SIGSTOP does; what is sent to it waits."""
        for name in words:
            self.alive(name).paused = True

    def do_resume(self, words: Words) -> None:
        """resume PEER ..."""
        for name in words:
            self.alive(name).paused = False

    # --- disks ---

    def do_stuck(self, words: Words) -> None:
        """stuck PEER ...: their disks take nothing, not even unsynced, until `sync`."""
        for name in words:
            actor = self.actor(name)
            actor.slow = actor.stuck = True

    def do_slow(self, words: Words) -> None:
        """slow PEER ...: their disks sync only by `sync` from now on."""
        for name in words:
            self.actor(name).slow = True

    def do_quick(self, words: Words) -> None:
        """quick PEER ...: their disks sync at once again."""
        for name in words:
            actor = self.actor(name)
            actor.slow = actor.stuck = False
            self.act(actor, actor.sync)

    def do_sync(self, words: Words) -> None:
        """sync PEER ...: what they have written is on disk now."""
        for name in words:
            actor = self.alive(name)
            self.act(actor, actor.sync)

    def do_damage(self, words: Words) -> None:
        """damage PEER FILE BYTE: turn over a bit on the disk of a peer that is not running; FILE
        is the beginning of its name."""
        actor = self.actor(words[0])
        names = [name for name in actor.disk.names() if name.startswith(words[1])]
        if actor.alive or not names:
            raise ScriptError(f"{actor.name} runs, or has only {actor.disk.names()}")
        actor.disk.flip_bit(names[0], int(words[2]) * 8)

    # --- time ---

    def do_timeout(self, words: Words) -> None:
        """timeout PEER: its Raft's timer fires, and no other one."""
        actor = self.alive(words[0])
        self.now_ms = max(self.now_ms, actor.raft_due_ms)
        self.act(actor, actor.tick)

    def do_elect(self, words: Words) -> None:
        """elect PEER [PEER ...]: the first campaigns among these until it leads, and all of them
        know what it knows. Told in one line."""
        actor, names = self.alive(words[0]), {a.name for a in self.some(words[1:])} | {words[0]}
        before, self._lines = self._lines, []
        leads = False
        for _ in range(ELECTIONS_MAX):
            self.now_ms = max(self.now_ms, actor.raft_due_ms)
            self.act(actor, actor.tick)
            self._settle(names)
            if leads:
                break  # a heartbeat later: all have heard what is committed
            leads = actor.standing.leads
        told = [line for line in self._lines if self.tells_elections or line.startswith(BROKEN)]
        self._lines = before + told
        if not actor.standing.leads:
            raise ScriptError(f"{actor.name} is not elected: {actor.standing}")
        self.say(f"{actor.name}: {actor.standing}")

    def do_tick(self, words: Words) -> None:
        """tick PEER ...: their timers look at the clock."""
        for name in words:
            actor = self.alive(name)
            self.act(actor, actor.tick)

    def do_skip(self, words: Words) -> None:
        """skip MS: time passes, and nobody looks."""
        self.now_ms += int(words[0])

    def do_wait(self, words: Words) -> None:
        """wait MS [PEER ...]: time passes for these; timers fire, messages arrive at once."""
        until_ms = self.now_ms + int(words[0])
        actors = self.some(words[1:])
        names = {actor.name for actor in actors}
        while True:
            running = [actor for actor in actors if actor.alive and not actor.paused]
            due = min(running, key=lambda actor: (actor.due_ms, actor.name), default=None)
            if due is None or due.due_ms > until_ms:
                break
            self.now_ms = max(self.now_ms, due.due_ms)
            self.act(due, due.tick)
            self._settle(names)
        self.now_ms = until_ms

    # --- messages ---

    def do_deliver(self, words: Words) -> None:
        """deliver FROM->TO [all|last|TEXT]: the first that is under way, or those meant."""
        for letter in self.mail.chosen(words):
            self.mail.flying.remove(letter)
            self._deliver(letter, aloud=True)

    def do_drop(self, words: Words) -> None:
        """drop FROM->TO [all|last|TEXT]"""
        for letter in self.mail.chosen(words):
            self.mail.flying.remove(letter)
            self._tell("lost: ", letter)

    def do_duplicate(self, words: Words) -> None:
        """duplicate FROM->TO [all|last|TEXT]: it is under way twice; the second at the end."""
        for letter in self.mail.chosen(words):
            self.mail.flying.append(Letter(letter.sender, letter.to, letter.data))
            self._tell("twice: ", letter)

    def _tell(self, what: str, letter: Letter, topic: str = "messages") -> None:
        arrow = "->" if what else "=>"
        said = self.words(letter.message)
        self.say(f"{what}{letter.sender} {arrow} {letter.to}  {said}", topic)

    def _deliver(self, letter: Letter, *, aloud: bool) -> None:
        actor = self.actors[letter.to]
        if not actor.alive:
            self._tell("lost, it is down: ", letter, "arrivals")
            return
        if aloud:  # else it was told when it was sent, just before
            self._tell("", letter, "arrivals")
        self.act(actor, lambda: actor.receive(PeerId(letter.sender), letter.message))

    def do_settle(self, words: Words) -> None:
        """settle [PEER ...]: deliver among these until they are quiet."""
        self._settle({actor.name for actor in self.some(words)})

    def _settle(self, names: set[str]) -> None:
        for _ in range(DELIVERIES_MAX):
            asleep = [actor.name for actor in self.actors.values() if actor.paused]
            letter = self.mail.next_of(names, asleep)
            if letter is not None:
                self._deliver(letter, aloud=False)
            elif not self.go_on([self.actors[name] for name in sorted(names)]):
                return
        raise ScriptError(f"not quiet after {DELIVERIES_MAX} messages")

    @abstractmethod
    def go_on(self, actors: Sequence[A]) -> bool:
        """Let happen at these what needs neither message nor time. False if there is nothing."""

    def do_cut(self, words: Words) -> None:
        """cut PEER|A-B|A->B ...: what is sent from now on is lost there."""
        self.mail.cut |= links_of(words, self.actors)

    def do_hold(self, words: Words) -> None:
        """hold PEER|A-B|A->B ...: what is under way there is late, until `heal` or `deliver`."""
        self.mail.held |= links_of(words, self.actors)

    def do_heal(self, words: Words) -> None:
        """heal [PEER|A-B|A->B ...]: these links, or all, work again."""
        mail = self.mail
        links = links_of(words, self.actors) if words else mail.cut | mail.held
        mail.cut -= links
        mail.held -= links

    # --- looking ---

    def do_show(self, words: Words) -> None:
        """show arrivals|messages|writes|roles ..."""
        self._shown |= set(self._topics(words))

    def do_hide(self, words: Words) -> None:
        """hide arrivals|messages|writes|roles ..."""
        self._shown -= set(self._topics(words))

    def _topics(self, words: Words) -> Words:
        if set(words) - set(TOPICS):
            raise ScriptError(f"topics are {', '.join(TOPICS)}")
        return words

    def do_flying(self, words: Words) -> None:
        """flying [FROM->TO [TEXT]]: what is under way."""
        for letter in self.mail.chosen([*words, "all"]) if words else self.mail.flying:
            self.say(f"{letter.sender} -> {letter.to}  {self.words(letter.message)}")

    def do_log(self, words: Words) -> None:
        """log [PEER ...]: the entries that they have."""
        for actor in self.some(words):
            self.say(f"{actor.name}: {actor.log_words() if actor.alive else 'down'}")

    def do_status(self, words: Words) -> None:
        """status [PEER ...]: role, term, vote, commit."""
        for actor in self.some(words):
            self.say(f"{actor.name}: {actor.standing if actor.alive else 'down'}")

    # --- what all kinds of peers can be asked ---

    def do_read(self, words: Words) -> None:
        """read PEER: a linearizable read."""
        actor = self.alive(words[0])
        self.act(actor, actor.read)

    def do_add(self, words: Words) -> None:
        """add LEADER PEER [at ADDRESS]: make it a member, or note where it is now."""
        leader, name = self.alive(words[0]), words[1]
        address = words[3] if len(words) > 3 else usual_address(name)
        self.act(leader, lambda: leader.add(member_of(name, address)))

    def do_remove(self, words: Words) -> None:
        """remove LEADER PEER: make it no member any more."""
        leader, name = self.alive(words[0]), words[1]
        self.act(leader, lambda: leader.remove(PeerId(name)))

    def do_snapshot(self, words: Words) -> None:
        """snapshot PEER ...: of what they have applied; their logs let go of it."""
        for name in words:
            actor = self.alive(name)
            self.act(actor, actor.save_snapshot)
