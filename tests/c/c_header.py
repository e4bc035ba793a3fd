"""What heartbeat.h declares, read as simply as cbindgen writes it, so that a new export is tested without a word."""

import re
from dataclasses import dataclass

from c_library import HEADER

FUNCTION = re.compile(r"^(?P<returns>[\w ]+?\*?)\b(?P<name>heartbeat_\w+|heartbeat)\((?P<parameters>[^)]*)\);", re.M)
COMMENT = re.compile(r"/\*.*?\*/", re.S)


@dataclass(frozen=True)
class Function:
    name: str
    returns: str
    parameters: tuple  # of (type, name)

    def pointers(self):
        return [number for number, (kind, _) in enumerate(self.parameters) if kind.endswith("*")]


def functions():
    text = COMMENT.sub("", HEADER.read_text())
    found = [Function(match["name"], match["returns"].strip(), parameters(match["parameters"])) for match in FUNCTION.finditer(text)]
    # Every name that stands before a parenthesis was understood.
    assert {function.name for function in found} == set(re.findall(r"\b(heartbeat\w*)\(", text))
    return found


def parameters(text):
    found = []
    for parameter in text.split(","):
        if parameter.strip() != "void":
            kind, name = re.fullmatch(r"\s*(.*?[\s*])(\w+)\s*", parameter, re.S).groups()
            found.append((re.sub(r"\s+", " ", kind).strip(), name))
    return tuple(found)


def enumerators(name):
    """The members of an enumeration, by their numbers."""
    body = re.search(rf"enum {name}\b.*?{{(.*?)}};", COMMENT.sub("", HEADER.read_text()), re.S)[1]
    return {int(number): member for member, number in re.findall(r"(\w+) = (\d+)", body)}
