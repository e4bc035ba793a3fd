"""The feeds of `checker serve`, read by a feed reader's own library."""

import signal
import time
import urllib.parse
import urllib.request

import feedparser
import pytest

import harness

# Whatever a name holds, it is text.
SERVICE = r'orders <b>&amp; \"\u0007\u001b\u202e\uFFFF'
TITLE = 'orders <b>&amp; "\\u{7}\\u{1b}\\u{202e}\\u{ffff}'

FORMATS = {"rss": "rss20", "atom": "atom10"}


def configuration(folder, detail="safe", status=503):
    return f"""
[service]
name = "{SERVICE}"
[server]
detail = "{detail}"
cache = "0s"
failure_status = {status}
[subsets]
readiness = ["files"]
others = ["queue", "files"]
[checks.files]
type = "command"
command = ["test", "-e", "{folder}/there"]
[checks.queue]
type = "worker"
file = "{folder}/no-<beat>&"
"""


def read(url, **headers):
    """A feed as a reader takes it: no error, valid, and each of its entries one that can be told from all others."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        assert answer.status == 200
        body = answer.read()
        feed = feedparser.parse(body, response_headers=dict(answer.headers), sanitize_html=False)
    assert not feed.bozo, feed.get("bozo_exception")
    assert feed.feed.title and feed.feed.link.endswith("?format=html")
    assert feed.feed.updated_parsed
    assert len({entry.id for entry in feed.entries}) == len(feed.entries)
    for entry in feed.entries:
        assert entry.id.startswith("urn:uuid:") and entry.title
        assert abs(time.time() - time.mktime(moment(entry)) + time.timezone) < 3600
    return feed, body


def moment(entry):
    return entry.published_parsed if "published_parsed" in entry else entry.updated_parsed


def told(feed):
    return [(entry.id, moment(entry), entry.title) for entry in feed.entries]


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_is_told_of_a_failure_and_of_the_recovery_once_each(serve, tmp_path, name):
    server = serve(configuration(tmp_path))
    url = f"{server.url}/readyz?format={name}"
    (tmp_path / "there").touch()
    started, _ = read(url)
    assert started.version == FORMATS[name]
    assert [entry.title for entry in started.entries] == ["files: ok"]
    (tmp_path / "there").unlink()
    failed, _ = read(url)
    assert [entry.title for entry in failed.entries] == ["files: fail", "files: ok"]
    assert "the program ended with status 1" in failed.entries[0].summary
    assert told(failed)[1:] == told(started)
    (tmp_path / "there").touch()
    recovered, body = read(url)
    assert [entry.title for entry in recovered.entries] == ["files: ok", "files: fail", "files: ok"]
    assert told(recovered)[1:] == told(failed)
    # Nothing has changed, and nothing is new.
    assert read(url)[1] == body
    server.file.write_text(configuration(tmp_path, status=500))
    server.signal(signal.SIGHUP)
    harness.until(lambda: "another configuration is in force" in server.output, what="it is read again")
    assert read(url)[1] == body
    # Of another subset, the same changes.
    others, _ = read(f"{server.url}/healthcheck/others?format={name}")
    assert set(map(str, told(recovered))) < set(map(str, told(others)))
    assert [link.href for link in recovered.feed.links if link.rel == "self"] == [url]


@pytest.mark.parametrize("name", FORMATS)
def test_every_name_is_text_whatever_it_holds(serve, tmp_path, name):
    server = serve(configuration(tmp_path))
    feed, body = read(f"{server.url}/healthcheck/others", Accept=f"application/{name}+xml, */*;q=0.1")
    assert feed.version == FORMATS[name]
    assert feed.feed.title == f"{TITLE}: others"
    assert b"<b>" not in body


def test_atom_has_all_that_its_specification_demands(serve, tmp_path):
    server = serve(configuration(tmp_path, detail="none"))
    feed, _ = read(f"{server.url}/healthcheck/others?format=atom")
    name = urllib.parse.quote_plus('orders <b>&amp; "\u0007\u001b\u202e\uffff')
    assert feed.feed.id == f"urn:checker:{name}::others"
    assert feed.feed.author == TITLE
    latest = max(entry.updated for entry in feed.entries)
    assert feed.feed.updated == latest
    for entry in feed.entries:
        (content,) = entry.content
        assert (content.type, content.value) == ("text/plain", "before: unknown")
    # There is always a time, with no entry too.
    empty, _ = read(f"{server.url}/healthz?format=atom")
    assert empty.entries == []


def test_rss_has_identifiers_that_are_no_links(serve, tmp_path):
    server = serve(configuration(tmp_path))
    feed, body = read(f"{server.url}/healthcheck/others?format=rss")
    assert feed.feed.subtitle
    assert body.count(b'<guid isPermaLink="false">') == len(feed.entries) == 2
    for entry in feed.entries:
        assert not entry.guidislink and entry.published.endswith(" GMT")
