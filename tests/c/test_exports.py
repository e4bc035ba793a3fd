"""Every export that the header declares: with NULL for each of its pointers, with a panic inside it, and what the small ones say."""

import re
import subprocess

import pytest

import harness
from c_library import SANITIZED, run
from c_header import enumerators, functions

# A good argument for each kind of parameter; a new kind fails here, until it has one.
GOOD = {
    "struct heartbeat_builder *": "builder",
    "const struct heartbeat_builder *": "builder",
    "const struct heartbeat *": "beats",
    "struct heartbeat *": "beats",
    "struct heartbeat_task *": "task",
    "const struct heartbeat_task *": "task",
    "const char *": '"127.0.0.1:0"',
    "char *": "buffer",
    "size_t": "sizeof buffer",
    "size_t *": "&length",
    "struct heartbeat **": "&other_beats",
    "struct heartbeat_task **": "&other_task",
    "heartbeat_worker_status *": "&status",
    "heartbeat_verdict *": "&verdict",
    "uint64_t": "1000",
    "uint32_t": "1",
    "int32_t": "1",
}
# What an export that returns no heartbeat_result returns where it panicked.
FALLBACK = {
    "heartbeat_builder_new": "== NULL",
    "heartbeat_version": "!= NULL",
    "heartbeat_result_text": "!= NULL",
    "heartbeat_verdict_text": "!= NULL",
    "heartbeat_verdict_is_live": "== true",
    "heartbeat_verdict_is_ready": "== false",
}
PROGRAM = """
#include <heartbeat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void heartbeat_test_panics(bool on);

static char buffer[64];
static size_t length = 4711;
static heartbeat_builder *builder;
static heartbeat *beats, *other_beats;
static heartbeat_task *task, *other_task;
static heartbeat_worker_status status = 4711;
static heartbeat_verdict verdict = 4711;

static void expect(int truth, const char *what) {
    if (truth) return;
    printf("%%s\\n", what);
    exit(1);
}

static void untouched(const char *what) {
    expect(length == 4711 && status == 4711 && verdict == 4711 && !other_beats && !other_task && buffer[0] == '\\0', what);
}

int main(void) {
    builder = heartbeat_builder_new();
    expect(builder && heartbeat_builder_set_no_file(builder) == HEARTBEAT_RESULT_OK, "builder");
    expect(heartbeat_builder_start(builder, &beats) == HEARTBEAT_RESULT_OK, "start");
    expect(heartbeat_task_start(beats, "task", HEARTBEAT_NONE, &task) == HEARTBEAT_RESULT_OK, "task");
%s
    expect(heartbeat_task_done(task) == HEARTBEAT_RESULT_OK, "task");
    expect(heartbeat_stop(beats) == HEARTBEAT_RESULT_OK, "stop");
    heartbeat_free(beats);
    heartbeat_builder_free(builder);
    return 0;
}
"""


def call(function, nulls=()):
    arguments = ["NULL" if number in nulls else GOOD[kind] for number, (kind, _) in enumerate(function.parameters)]
    return f"{function.name}({', '.join(arguments)})"


def with_nulls():
    for function in functions():
        pointers = function.pointers()
        for nulls in [*({pointer} for pointer in pointers), set(pointers)] if pointers else []:
            text = call(function, nulls)
            if function.returns == "void":
                yield f"    {text};"
            else:
                assert function.returns == "heartbeat_result", function
                quoted = text.replace('"', "'")
                yield f'    expect({text} == HEARTBEAT_RESULT_NULL_PARAMETER, "{quoted}");\n    untouched("{quoted}");'


def with_panics():
    yield "    heartbeat_test_panics(true);"
    for function in functions():
        text = call(function)
        quoted = text.replace('"', "'")
        if function.returns == "heartbeat_result":
            yield f'    expect({text} == HEARTBEAT_RESULT_PANIC, "{quoted}");'
        elif function.returns == "void":
            yield f"    {text};"
        else:
            yield f'    expect({text} {FALLBACK[function.name]}, "{quoted}");'
    yield '    untouched("a panic");\n    heartbeat_test_panics(false);'


def program(tmp_path, lines):
    source = tmp_path / "calls.c"
    source.write_text(PROGRAM % "\n".join(lines))
    return source


def test_the_header_is_understood():
    names = {function.name for function in functions()}
    assert {"heartbeat_pulse", "heartbeat_free", "heartbeat_check_file", "heartbeat_builder_start"} <= names
    assert sum(len(function.pointers()) for function in functions()) > 50


def test_null_is_refused_in_every_pointer_of_every_export(shipped, tmp_path):
    source = program(tmp_path, with_nulls())
    run(shipped.program(source, tmp_path / "calls", *SANITIZED), env=harness.environment())


@pytest.mark.parametrize("way", ["everything", "musl"])
def test_a_panic_leaves_no_export(way, request, tmp_path):
    library = request.getfixturevalue(way)
    static = {"static": True} if way == "musl" else {}
    options = ["-static"] if way == "musl" else []
    calls = library.program(program(tmp_path, with_panics()), tmp_path / "calls", *options, **static)
    # Without the places that each came from, which take a static program half a second each.
    environment = harness.environment(RUST_BACKTRACE=0)
    done = subprocess.run([calls], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    # Each was told on standard error, so each really happened.
    assert done.stderr.count("panicked at") == len(functions())


WORDS = """
#include <heartbeat.h>
#include <stdio.h>

int main(void) {
    for (uint32_t number = 0; number < 100; number++)
        printf("%s|%d|%d|%s\\n", heartbeat_verdict_text(number), heartbeat_verdict_is_live(number),
               heartbeat_verdict_is_ready(number), heartbeat_result_text(number));
    printf("%s\\n", heartbeat_version());
    return 0;
}
"""


def test_verdicts_and_results_have_the_words_of_the_header_and_the_meaning_of_the_command(shipped, tmp_path):
    source = tmp_path / "words.c"
    source.write_text(WORDS)
    *lines, version = run(shipped.program(source, tmp_path / "words")).splitlines()
    assert version == shipped.pkg_config("--modversion")[0]
    told = [line.split("|") for line in lines]
    names = {number: name.removeprefix("HEARTBEAT_VERDICT_").replace("_", " ").lower() for number, name in enumerators("heartbeat_verdict").items()}
    assert {number: told[number][0] for number in names} == names
    meaning = re.findall(r"^  (\w+(?: \w+)?) {2,}(yes|no|passes) +(yes|no|fails) ", run(harness.CHECKER, "worker", "--help"), re.M)
    assert sorted(name for name, _, _ in meaning) == sorted(names.values())
    for name, live, ready in meaning:
        number = next(number for number, known in names.items() if known == name)
        assert (told[number][1] == "1", told[number][2] == "1") == (live != "no", ready == "yes"), name
    # Numbers that are none: who cannot tell kills nobody, and sends nobody work.
    assert {tuple(line[:3]) for line in told[len(names) :]} == {("unknown", "1", "0")}
    results = enumerators("heartbeat_result")
    assert len({told[number][3] for number in results}) == len(results)
    assert {line[3] for line in told[len(results) :]} == {"not a number of libheartbeat's"}


TEXTS = """
#include <heartbeat.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats = NULL;
    char whole[512], cut[512];
    size_t length, size;

    (void)argc;
    heartbeat_builder_set_file(builder, argv[1]);
    printf("%u %u %u\\n", heartbeat_builder_set_worker(builder, "\\xff"), heartbeat_builder_start(builder, &beats), beats == NULL);
    if (heartbeat_builder_error(builder, whole, sizeof whole, &length) || length != strlen(whole)) return 1;
    printf("%s\\n", whole);
    for (size = 0; size <= length + 2; size++) {
        size_t told = 0, fits;
        memset(cut, '!', sizeof cut);
        if (heartbeat_builder_error(builder, cut, size, &told) || told != length) return 2;
        if (cut[size] != '!') return 3;
        if (size == 0) continue;
        fits = strlen(cut);
        if (fits >= size || memcmp(cut, whole, fits) != 0) return 4;
        /* Whole characters, and no more cut off than one that does not fit. */
        if (((unsigned char)whole[fits] & 0xc0) == 0x80 || (fits < length && size - 1 - fits > 3)) return 5;
    }
    heartbeat_builder_free(builder);
    return 0;
}
"""


def test_texts_are_cut_at_a_character_and_never_written_beyond_the_buffer(shipped, tmp_path):
    source, folder = tmp_path / "texts.c", tmp_path / "Ümläüt-€-𝄞"
    source.write_text(TEXTS)
    folder.mkdir()
    first, error = run(shipped.program(source, tmp_path / "texts", *SANITIZED), folder, env=harness.environment()).splitlines()
    results = {name: number for number, name in enumerators("heartbeat_result").items()}
    assert first == f"{results['HEARTBEAT_RESULT_INVALID_PARAMETER']} {results['HEARTBEAT_RESULT_UNSAFE']} 1"
    assert str(folder) in error and "not a regular file" in error
