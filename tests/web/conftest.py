"""Fixtures of the tests that ask `checker serve`."""

import pytest

import harness


@pytest.fixture
def serve(start, tmp_path):
    """Starts `checker serve` with this configuration, and gives it once it listens; its address is in `url`."""

    def begin(configuration, *arguments, listen=None, env=None):
        return start(Serve, tmp_path, configuration, *arguments, listen=listen, env=env)

    return begin


class Serve(harness.Program):
    def __init__(self, folder, configuration, *arguments, listen=None, env=None):
        self.port = harness.free_port()
        self.place = listen or f"127.0.0.1:{self.port}"
        self.url = f"http://{self.place}"
        self.file = folder / f"checker-{self.port}.toml"
        self.file.write_text(configuration)
        listen = ["--listen", self.place]
        super().__init__([harness.CHECKER, "serve", "--config", self.file, *listen, *arguments], env)
        harness.until(lambda: "listening" in self.output or self.process.poll() is not None, timeout=30, what="it listens")
        assert self.process.poll() is None, self.output
