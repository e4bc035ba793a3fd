"""The reader of pages is strict: what it would overlook, no page's test would ever catch."""

import pytest

from blocks import blocks, commands, printed


@pytest.mark.parametrize(
    "expected, output",
    [
        (["alive"], "alive\n"),
        (["silent for … s", "second"], "silent for 42.1 s\nsecond\n"),
        (["first", "…", "last"], "first\n2\n3\nlast\n"),
        (["first", "…"], "first\n"),
        (["…"], "anything\nat all\n"),
        (["ends in spaces"], "ends in spaces  \n\n"),
        ([], ""),
    ],
)
def test_output_that_the_page_shows_is_recognised(expected, output):
    assert printed(expected, output)


@pytest.mark.parametrize(
    "expected, output",
    [
        (["alive"], "alive\nand more\n"),
        (["alive", "and more"], "alive\n"),
        (["a.c"], "abc\n"),
        (["… s"], "1\n2 s\n"),
        ([], "unexpected\n"),
        (["expected"], ""),
    ],
)
def test_other_output_is_not(expected, output):
    assert not printed(expected, output)


def test_a_block_knows_its_line_its_language_and_the_comments_right_above_it():
    page = "# T\n\n<!-- too far -->\nprose\n<!-- not run: needs a cluster -->\n<!-- worker --queue mail | wedge -->\n\n```sh\na\n\nb\n```\n"
    (block,) = blocks("page", page)
    assert (block.line, block.language, block.text) == (8, "sh", "a\n\nb\n")
    assert block.not_run == "needs a cluster"
    assert block.comment("worker") == "--queue mail | wedge"
    assert block.comment("too far") is None


def test_an_indented_block_is_read_without_its_indentation():
    (block,) = blocks("page", "1. item\n\n   ```sh\n   a\n     b\n   ```\n")
    assert block.text == "a\n  b\n"


def test_a_block_that_is_never_closed_is_an_error():
    with pytest.raises(ValueError, match="never closed"):
        blocks("page", "```sh\na\n")


def test_a_console_block_is_commands_with_their_output_and_status():
    first, second = commands("$ a \\\n    --b\none\n\n$ c\n[exit 1]\n")
    assert (first.text, first.expected, first.status) == ("a \\\n    --b", ["one", ""], 0)
    assert (second.text, second.expected, second.status) == ("c", [], 1)


def test_output_before_the_first_command_is_an_error():
    with pytest.raises(ValueError, match="begins with a command"):
        commands("one\n$ a\n")
