# Sourced by tests/run and .ci/run: runs steps one after another and tells at the end how each went.
#
#   step NAME COMMAND...   runs the command up to its first error, and goes on with the next step whatever comes of it
#   finish_steps           prints the summary; the script's last command, for its status is that of all steps together

steps_summary=()
steps_failed=0

say() { printf '\n== %s\n' "$*"; }

step() {
    local name=$1 result=passed started=$SECONDS status
    shift
    say "$name"
    # Not `if ( … )`: bash ignores `set -e` inside a condition.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    if ((status)); then
        result=FAILED
        steps_failed=1
    fi
    say "$name: $result in $((SECONDS - started)) s"
    steps_summary+=("$(printf '%-6s %5d s  %s' "$result" "$((SECONDS - started))" "$name")")
}

finish_steps() {
    say "$0"
    printf '%s\n' "${steps_summary[@]}"
    return "$steps_failed"
}
