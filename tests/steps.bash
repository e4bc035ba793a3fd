# Sourced by tests/run and .ci/run: runs steps one after another and tells at the end how each went.
#
#   step NAME COMMAND...    runs the command up to its first error, and goes on with the next step whatever comes of it
#   beside NAME COMMAND...  starts a step that has what the processors have left over, and is silent until it is joined
#   join NAME               waits for it, and tells what it said
#   finish_steps            prints the summary; the script's last command, for its status is that of all steps together

steps_summary=()
steps_failed=0
declare -A steps_beside=()

say() { printf '\n== %s\n' "$*"; }

step() {
    local name=$1 started=$SECONDS status
    shift
    say "$name"
    # Not `if ( … )`: bash ignores `set -e` inside a condition.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    steps_ended "$name" "$status" "$started"
}

beside() {
    local name=$1 output
    shift
    output=$(mktemp)
    (
        set -e
        # Whatever else wants to run comes first, always.
        chrt --idle --pid 0 "$BASHPID"
        "$@"
    ) >"$output" 2>&1 </dev/null &
    steps_beside[$name]="$! $SECONDS $output"
}

join() {
    local pid started output status=0
    read -r pid started output <<<"${steps_beside[$1]}"
    say "$1"
    wait "$pid" || status=$?
    cat "$output"
    rm "$output"
    steps_ended "$1" "$status" "$started"
}

steps_ended() {
    local name=$1 result=passed seconds=$((SECONDS - $3))
    if (($2)); then
        result=FAILED
        steps_failed=1
    fi
    say "$name: $result in $seconds s"
    steps_summary+=("$(printf '%-6s %5d s  %s' "$result" "$seconds" "$name")")
}

finish_steps() {
    say "$0"
    printf '%s\n' "${steps_summary[@]}"
    return "$steps_failed"
}
