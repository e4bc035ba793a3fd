"""What can be wrong with a Redis for two minutes, each as its begin, what goes on in it, and its end."""

import signal

from scene import Proxy, rights


class Outage:
    """None at all: who is left in peace, and is the measure of the others."""

    name = "undisturbed"
    tick_every = 1.0
    # Whether no beat gets through from its begin to its end.
    cuts_off = False
    # Whether the checker cannot ask either.
    hides = False

    def url(self, group, user):
        port = group.proxy.port if group.proxy else group.server.port
        return f"redis://127.0.0.1:{port}"

    def prepare(self, group): ...

    def begin(self, group): ...

    def tick(self, group): ...

    def end(self, group): ...


class Killed(Outage):
    name = "killed"
    cuts_off = hides = True

    def begin(self, group):
        group.server.kill()

    def end(self, group):
        group.server.start()
        group.returned()


class Frozen(Outage):
    name = "frozen"
    cuts_off = hides = True

    def begin(self, group):
        group.server.program.signal(signal.SIGSTOP)

    def end(self, group):
        group.server.program.signal(signal.SIGCONT)
        group.returned()


class Slow(Outage):
    """Each answer comes in pieces over 3.5 s; a worker of this interval waits for 3 s."""

    name = "slow"
    delay = 3.5
    cuts_off = True

    def prepare(self, group):
        group.proxy = Proxy(group.server.port)

    def begin(self, group):
        group.proxy.set_delay(self.delay)

    def end(self, group):
        group.proxy.set_delay(0.0)
        group.returned()


class Sluggish(Slow):
    """Slow, and not so slow that a worker gives up."""

    name = "sluggish"
    delay = 1.5
    cuts_off = False


class Restarted(Outage):
    """Again and again, with nothing in it."""

    name = "restarted"
    tick_every = 10.0

    def tick(self, group):
        group.server.kill()
        group.server.start()
        group.returned()


class Emptied(Outage):
    name = "emptied"
    tick_every = 7.0

    def tick(self, group):
        group.server.ask("FLUSHALL")
        group.returned()


class Full(Outage):
    """One foreign key without a time to live takes all the memory that there is."""

    name = "full-noeviction"
    policy = "noeviction"
    cuts_off = True

    def begin(self, group):
        used = group.server.client.info("memory")["used_memory"]
        group.server.ask("CONFIG", "SET", "maxmemory-policy", self.policy)
        group.server.ask("CONFIG", "SET", "maxmemory", used + 1_000_000)
        group.server.ask("SETRANGE", "foreign", 8_000_000, "x")

    def end(self, group):
        group.server.ask("DEL", "foreign")
        group.returned()


class FullEvicting(Full):
    """The same, and first all beats are evicted."""

    name = "full-volatile-lru"
    policy = "volatile-lru"


class Churning(Full):
    """Foreign keys that end come in all the time, so that something is always evicted."""

    name = "churning-volatile-lru"
    tick_every = 0.25
    cuts_off = False
    written = 0

    def begin(self, group):
        used = group.server.client.info("memory")["used_memory"]
        group.server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        group.server.ask("CONFIG", "SET", "maxmemory", used + 3_000_000)

    def tick(self, group):
        for _ in range(20):
            self.written += 1
            group.server.ask("SET", f"foreign:{self.written}", "x" * 20_000, "EX", 1_000)

    def end(self, group):
        group.evicted = group.server.client.info("stats")["evicted_keys"]
        group.server.ask("CONFIG", "SET", "maxmemory", 0)
        group.returned()


class Denying(Outage):
    """The workers' user may no longer what it may, on the connections that stand; the checker's still may."""

    name = "denying"
    cuts_off = True

    def prepare(self, group):
        for user in ("publisher", "checker"):
            group.server.ask("ACL", "SETUSER", user, "on", ">S3cret", "~heartbeat:{c}:*", *rights(user))

    def url(self, group, user):
        return f"redis://{user}:S3cret@127.0.0.1:{group.server.port}"

    def begin(self, group):
        group.server.ask("ACL", "SETUSER", "publisher", "-eval", "-evalsha")

    def end(self, group):
        group.server.ask("ACL", "SETUSER", "publisher", "+eval", "+evalsha")
        group.returned()


OUTAGES = [Outage, Killed, Frozen, Slow, Sluggish, Restarted, Emptied, Full, FullEvicting, Churning, Denying]

# Those that an agent goes through too, beside the workers that beat to Redis by themselves.
FOR_AN_AGENT = [Killed, Frozen, Slow, Restarted, Emptied, Full, FullEvicting, Denying]
