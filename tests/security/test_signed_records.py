"""Signed records, told apart from all that somebody else who may write to the same Redis can put there."""

import hashlib
import hmac
import json
import signal
import subprocess

import pytest
import redis

import harness
from harness import CHECKER, HEARTBEAT, Program, until

KEY = "the-key-of-this-cluster-0123456789abcdef"
OTHER = "another-key-that-nobody-here-has-0123456"
FAR = 9_000_000_000_000


class Answer:
    def __init__(self, done):
        self.code, self.errors = done.returncode, done.stderr
        assert done.stdout, done.stderr
        self.told = json.loads(done.stdout)
        self.reason = self.told["reason"]
        self.verdicts = {worker["worker"]: worker["verdict"] for worker in self.told.get("workers", [])}

    @property
    def passes(self):
        return self.code == 0


class Fleet:
    """A cluster in a Redis that an attacker may write to as well."""

    def __init__(self, server, start, folder):
        self.url, self.start, self.folder = server.url, start, folder
        self.attacker = redis.Redis.from_url(server.url)

    def key(self, name):
        return f"heartbeat:{{orders}}:{name}"

    def now(self):
        """The server's clock, in milliseconds."""
        seconds, micros = self.attacker.time()
        return seconds * 1000 + micros // 1000

    def ids(self):
        return {json.loads(self.attacker.get(key))["worker"]: key.decode().rpartition(":")[2] for key in self.attacker.scan_iter(self.key("stat:*"))}

    def worker(self, name, key=KEY, command=("sleep", "600"), options=(), promise="5m"):
        settings = {"HEARTBEAT_KEY": key} if key else {}
        environment = harness.environment(HEARTBEAT_REDIS_URL=self.url, HEARTBEAT_INTERVAL="100ms", HEARTBEAT_PROMISE=promise, **settings)
        words = [HEARTBEAT, "run", "--file", self.folder / name, "--cluster", "orders", "--worker", name, "--queue", "mail", *options, "--", *command]
        program = self.start(Program, words, environment)
        until(lambda: name in self.ids(), timeout=30, what=f"{name} beats to Redis; {program.output}")
        return program

    def killed_worker(self, name, **settings):
        """One that beats no more, and still is within its promise: nothing of its own overwrites what is written here."""
        worker = self.worker(name, **settings)
        worker.end()
        return self.ids()[name]

    def ask(self, *options, key=KEY):
        settings = {"HEARTBEAT_KEY": key} if key else {}
        words = [CHECKER, "cluster", "orders", "--format", "json", "--list", *map(str, options)]
        environment = harness.environment(HEARTBEAT_REDIS_URL=self.url, **settings)
        return Answer(subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False))

    def put(self, id, line, name="web-9"):
        """All that a worker's own beat would write, but for the signature."""
        if line is not None:
            self.attacker.set(self.key(f"stat:{id}"), line)
        for index in ("workers", "ready", "queue:mail"):
            self.attacker.zadd(self.key(index), {id: FAR})
        self.attacker.hset(self.key("names"), mapping={id: f"300000\n{name}\nhost", f"={name}": id})


@pytest.fixture
def fleet(own_broker, start, tmp_path):
    return Fleet(own_broker, start, tmp_path)


def signed(line, at_ms, key=KEY):
    """What the documentation says of the signature, said once more."""
    before = line.removesuffix(b"}\n") + b',"signed_ms":%d' % at_ms
    mac = hmac.new(key.encode(), b"heartbeat record 1\n" + before, hashlib.sha256).hexdigest()
    return before + b',"mac":"' + mac.encode() + b'"}\n'


def test_a_signed_worker_counts_with_the_key_and_without_one_and_with_another_it_does_not(fleet):
    fleet.worker("web-1")
    for key in (KEY, None):
        told = fleet.ask("--queue", "mail", "--expect", "web-1", key=key)
        assert told.passes and told.told["status"] == "pass", told.told
        assert told.verdicts == {"web-1": "alive"}
    told = fleet.ask(key=OTHER)
    assert (told.code, told.told["fresh"], told.verdicts) == (1, 0, {"web-1": "corrupt"})
    assert "not trusted: orders@web-1 (there is no record in it: its signature is not right)" in told.reason


def test_the_signature_is_what_the_page_says(fleet):
    fleet.killed_worker("web-1")
    line = fleet.attacker.get(fleet.key("stat:" + fleet.ids()["web-1"]))
    before, _, signature = line.partition(b',"signed_ms":')
    assert signed(before + b"}\n", json.loads(line)["signed_ms"]) == line and len(signature) == 13 + 8 + 64 + 3
    assert "mac" not in json.loads((fleet.folder / "web-1").read_text()), "a file is not signed"


def test_one_that_is_not_signed_is_named_warned_of_and_not_counted(fleet):
    fleet.worker("web-1")
    fleet.worker("web-2", key=None)
    told = fleet.ask("--min", 1)
    assert told.passes and told.told["status"] == "warn", told.told
    assert told.told["fresh"] == 1 and told.verdicts == {"web-1": "alive", "web-2": "corrupt"}
    assert "not trusted: orders@web-2 (there is no record in it: it is not signed)" in told.reason
    assert not fleet.ask("--min", 2).passes
    assert not fleet.ask("--queue", "mail:2").passes
    assert not fleet.ask("--min", 2, "--for", "live").passes
    assert "web-2 is not trusted" in fleet.ask("--expect", "web-2").reason
    assert fleet.ask("--min", 2, key=None).passes, "who has no key cannot know"


def test_a_record_cannot_be_copied_to_another_id_or_cluster(fleet):
    id = fleet.killed_worker("web-1")
    line = fleet.attacker.get(fleet.key(f"stat:{id}"))
    fleet.put("0" * 31 + "1", line)
    told = fleet.ask("--min", 2)
    assert not told.passes and told.told["fresh"] == 1, told.told
    assert sorted(told.verdicts.values()) == ["alive", "corrupt"]
    assert fleet.ask("--min", 2, key=None).passes, "the index alone says so"
    # Another cluster of the same key.
    for name in ("workers", "ready"):
        fleet.attacker.zadd(f"heartbeat:{{mail}}:{name}", {id: FAR})
    fleet.attacker.set(f"heartbeat:{{mail}}:stat:{id}", line)
    environment = harness.environment(HEARTBEAT_REDIS_URL=fleet.url, HEARTBEAT_KEY=KEY)
    done = subprocess.run([CHECKER, "cluster", "mail"], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and 'its "cluster" has an impossible value' in done.stdout, done.stdout


@pytest.mark.parametrize("change", [b'"pid":', b'"status":"', b'"worker":"', b'"promise_ms":'], ids=lambda change: change.decode().strip('":'))
def test_no_word_of_a_record_can_be_changed(change, fleet):
    id = fleet.killed_worker("web-1")
    line = fleet.attacker.get(fleet.key(f"stat:{id}"))
    changed = line.replace(change, change + b"1") if change.endswith(b":") else line.replace(change, change + b"x")
    if change == b'"status":"':
        changed = line.replace(b'"status":"busy"', b'"status":"idle"').replace(b'"status":"idle"', b'"status":"starting"')
    assert changed != line
    fleet.put(id, changed, "web-1")
    told = fleet.ask()
    assert (told.code, told.verdicts) == (1, {"web-1": "corrupt"}), told.told
    assert "its signature is not right" in told.reason
    # And neither by somebody's own key.
    fleet.put(id, signed(changed.split(b',"signed_ms"')[0] + b"}\n", fleet.now(), OTHER), "web-1")
    assert fleet.ask().verdicts == {"web-1": "corrupt"}


def test_the_sets_make_nobody_ready_who_does_not_say_so_himself(fleet):
    worker = fleet.worker("web-1", command=("bash", "-c", 'trap "" TERM; while :; do sleep 1; done'))
    worker.signal(signal.SIGTERM)
    until(lambda: fleet.ask(key=None).verdicts == {"web-1": "draining"}, timeout=30, what="it drains")
    # From now on nothing of its own overwrites what is written here.
    worker.end()
    id = fleet.ids()["web-1"]
    for index in ("ready", "queue:mail", "queue:pdf"):
        fleet.attacker.zadd(fleet.key(index), {id: FAR})
    assert fleet.ask("--queue", "mail", "--queue", "pdf", key=None).passes
    told = fleet.ask()
    assert (told.code, told.told["fresh"], told.verdicts) == (1, 1, {"web-1": "draining"}), told.told
    assert fleet.ask("--for", "live", "--queue", "mail").passes
    assert not fleet.ask("--for", "live", "--queue", "pdf").passes


def test_a_dead_workers_record_is_not_kept_alive_by_one_write(fleet):
    id = fleet.killed_worker("web-1")
    fleet.attacker.persist(fleet.key(f"stat:{id}"))
    for index in ("workers", "ready", "queue:mail"):
        fleet.attacker.zadd(fleet.key(index), {id: FAR})
    assert fleet.ask(key=None).passes
    told = fleet.ask()
    assert (told.code, told.verdicts) == (1, {"web-1": "corrupt"}), told.told
    assert "it is said to be good for longer than it promises" in told.reason


def test_a_dead_workers_record_is_not_kept_alive_by_sending_it_again_either(fleet):
    id = fleet.killed_worker("web-1", promise="1s")
    line = fleet.attacker.get(fleet.key(f"stat:{id}"))

    def ask_again(**options):
        """Each time as if it had just beaten."""
        fleet.attacker.set(fleet.key(f"stat:{id}"), line)
        for index in ("workers", "ready", "queue:mail"):
            fleet.attacker.zadd(fleet.key(index), {id: fleet.now() + 1_000})
        return fleet.ask(**options)

    until(lambda: not ask_again().passes, timeout=30, what="it is not believed any more")
    told = ask_again()
    assert (told.code, told.verdicts) == (1, {"web-1": "corrupt"}), told.told
    assert "it was signed too long ago" in told.reason
    assert ask_again(key=None).passes, "who has no key cannot know"


def test_a_worker_without_a_record_does_not_count(fleet):
    fleet.put("0" * 31 + "1", None)
    assert fleet.ask(key=None).passes
    told = fleet.ask()
    assert (told.code, told.told["fresh"], told.verdicts) == (1, 0, {"web-9": "unknown"}), told.told


def test_a_name_that_points_to_another_worker_is_not_there(fleet):
    id = fleet.killed_worker("web-1")
    fleet.attacker.hset(fleet.key("names"), "=web-2", id)
    assert "web-2 is not there" in fleet.ask("--expect", "web-2").reason


def test_while_keys_change_both_are_accepted(fleet):
    fleet.worker("old", key=KEY)
    fleet.worker("new", key=f"{OTHER} {KEY}")
    assert fleet.ask("--min", 2, key=f"{OTHER} {KEY}").passes
    assert fleet.ask("--min", 2, key=f"{KEY} {OTHER}").passes
    told = fleet.ask(key=OTHER)
    assert told.verdicts == {"old": "corrupt", "new": "alive"}, "the first of two keys signs"


def test_a_key_file_is_as_good_and_is_what_an_agent_signs_with(fleet, start, tmp_path):
    key, folder = tmp_path / "key", tmp_path / "beats"
    key.write_text(KEY + "\n")
    folder.mkdir()
    fleet.worker("web-1", key=None, options=("--key-file", key))
    named = {"HEARTBEAT_FILE": folder / "beat", "HEARTBEAT_CLUSTER": "orders", "HEARTBEAT_WORKER": "web-2", "HEARTBEAT_QUEUES": "mail"}
    start(Program, [HEARTBEAT, "run", "--", "sleep", "600"], harness.environment(**named))
    agent = start(Program, [HEARTBEAT, "agent", "--dir", folder, "--interval", "100ms", "--key-file", key], harness.environment(HEARTBEAT_REDIS_URL=fleet.url))
    until(lambda: "web-2" in fleet.ids(), timeout=30, what=f"the agent publishes; {agent.output}")
    told = fleet.ask("--min", 2, "--key-file", key, key=None)
    assert told.passes and told.told["status"] == "pass", told.told
    assert told.verdicts == {"web-1": "alive", "web-2": "alive"}


def test_a_configured_check_counts_by_its_key(fleet, tmp_path):
    fleet.worker("web-1")
    fleet.worker("web-2", key=None)
    (tmp_path / "key").write_text(KEY)
    configuration = tmp_path / "checker.toml"

    def run(least, key):
        configuration.write_text(
            f'[checks.fleet]\ntype = "cluster"\ncluster = "orders"\nredis = "{fleet.url}"\nmin = {least}\n{key}\n[subsets]\nall = ["fleet"]\n'
        )
        words = [CHECKER, "run", "all", "--config", configuration, "--format", "json"]
        done = subprocess.run(words, env=harness.environment(), capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, json.loads(done.stdout)["checks"]["fleet"]["status"], done.stdout + done.stderr

    file = f'key = {{ file = "{tmp_path / "key"}" }}'
    assert run(2, "")[:2] == (0, "ok")
    assert run(1, file)[1] == "warning"
    assert run(2, file)[:2] == (1, "fail")
    code, _, output = run(2, f'key = "{OTHER}"')
    assert code == 1 and OTHER not in output


@pytest.mark.parametrize("key", ["short", f"{KEY} {KEY} {OTHER}", "ünprintable-" * 4])
def test_a_key_that_cannot_be_is_refused_by_all_and_shown_by_none(key, fleet, tmp_path):
    environment = harness.environment(HEARTBEAT_REDIS_URL=fleet.url, HEARTBEAT_KEY=key)
    (tmp_path / "key").write_text(key)
    commands = [
        [CHECKER, "cluster", "orders"],
        [CHECKER, "watch", "--cluster", "orders"],
        [HEARTBEAT, "run", "--file", tmp_path / "beat", "--", "true"],
        [HEARTBEAT, "agent", "--dir", tmp_path],
        [CHECKER, "cluster", "orders", "--key-file", tmp_path / "key"],
        [CHECKER, "watch", "--cluster", "orders", "--key-file", tmp_path / "key"],
        [HEARTBEAT, "run", "--file", tmp_path / "beat", "--key-file", tmp_path / "key", "--", "true"],
        [HEARTBEAT, "agent", "--dir", tmp_path, "--key-file", tmp_path / "key"],
    ]
    for words in commands:
        environment = environment if "--key-file" not in words else harness.environment(HEARTBEAT_REDIS_URL=fleet.url)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == 2 and "cannot be used" in output, (words, done.returncode, output)
        assert key not in output


def test_a_large_cluster_is_verified_in_pages(fleet):
    """2,500 workers, of which every tenth is not signed."""
    id = fleet.killed_worker("web-1")
    line = json.loads(fleet.attacker.get(fleet.key(f"stat:{id}")).split(b',"signed_ms"')[0] + b"}")
    pipe, now = fleet.attacker.pipeline(transaction=False), fleet.now()
    for number in range(2_500):
        own = f"{number:032x}"
        record = json.dumps(line | {"id": own, "worker": f"w{number}"}).encode() + b"\n"
        pipe.set(fleet.key(f"stat:{own}"), record if number % 10 == 0 else signed(record, now))
        for index in ("workers", "ready", "queue:mail"):
            pipe.zadd(fleet.key(index), {own: now + 300_000})
    pipe.execute()
    fleet.attacker.config_resetstat()
    told = fleet.ask("--min", 2_251)
    assert told.passes and told.told["fresh"] == 2_251, told.told["reason"]
    assert "and 245 more" in told.reason
    calls = {name: stat["calls"] for name, stat in fleet.attacker.info("commandstats").items()}
    assert calls["cmdstat_zscan"] <= 5 and calls["cmdstat_mget"] <= 30, calls
