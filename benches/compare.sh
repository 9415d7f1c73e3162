#!/usr/bin/env bash
#
# Measures whole processes, from start to end, on made-up logs in the page cache: lapwing with its whole catalogue, what
# bounds it from below (counting newlines) and what one would use instead. The report is Markdown, on standard output.
#
#   benches/compare.sh > report.md
#   SIZE=100MB RUNS=1 benches/compare.sh              # a quick look
#
# SIZE          size of each log (default 1GB)
# ARCHIVE_SIZE  size of the text in each archive (default 250MB)
# RUNS          runs of each program, taken in turns; medians are reported (default 3)
# SCRATCH       folder for the logs, about five times SIZE (default bench in the target folder)
# ONLY          a regular expression over the names in the tables: leave the other programs out
#
# What is not installed is left out: jq, rg, DuckDB (its command line or its Python module), rsigma
# (`cargo install rsigma --locked`), gzip, zstd, valgrind. Peak memory and processor time need GNU time (the
# Debian package `time`) or python3.

# Backquotes are Markdown's, and $1 the inner shell's:
# shellcheck disable=SC2016

set -euo pipefail
export LC_ALL=C

cd "$(dirname "${BASH_SOURCE[0]}")/.."
size=${SIZE:-1GB}
archive_size=${ARCHIVE_SIZE:-250MB}
runs=${RUNS:-3}
only=${ONLY:-.}
target=${CARGO_TARGET_DIR:-target}
mkdir -p "${SCRATCH:-$target/bench}"
scratch=$(cd "${SCRATCH:-$target/bench}" && pwd)
mkdir -p "$target/release"
bin=$(cd "$target/release" && pwd)
lapwing=$bin/lapwing
work=$(mktemp -d "$scratch/work.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
results=$work/results
: > "$results"

say() { printf '%s\n' "$*" >&2; }
have() { command -v -- "$1" > /dev/null 2>&1; }
bytes_of() { stat -c %s -- "$1"; }
lines_of() { wc -l < "$1"; }

# ----------------------------------------------------------------------------------------------------------------------
# The same four questions, in each program's language: who changed RBAC, who came anonymously, who read secrets, who ran
# something in a pod. Lapwing asks these and all the others of its catalogue.

regex='"system:anonymous"|"resource":"secrets"|"apiGroup":"rbac\.authorization\.k8s\.io"|"subresource":"exec"'

jq_filter='select(
  (.objectRef.apiGroup == "rbac.authorization.k8s.io" and (.verb | IN("create", "update", "patch", "delete")))
  or .user.username == "system:anonymous"
  or (.objectRef.resource == "secrets" and (.verb | IN("get", "list", "watch")))
  or (.objectRef.resource == "pods" and .objectRef.subresource == "exec"))'

duckdb_query() { # FILE
    cat << QUERY
SET threads = 2;
COPY (
  SELECT auditID FROM read_json('$1', format = 'newline_delimited', maximum_object_size = 16777216, columns = {
    auditID: 'VARCHAR', verb: 'VARCHAR', "user": 'STRUCT(username VARCHAR)',
    objectRef: 'STRUCT(resource VARCHAR, subresource VARCHAR, apiGroup VARCHAR)'})
  WHERE (objectRef.apiGroup = 'rbac.authorization.k8s.io' AND verb IN ('create', 'update', 'patch', 'delete'))
    OR "user".username = 'system:anonymous'
    OR (objectRef.resource = 'secrets' AND verb IN ('get', 'list', 'watch'))
    OR (objectRef.resource = 'pods' AND objectRef.subresource = 'exec')
) TO '/dev/null' (FORMAT csv);
QUERY
}

write_sigma_rules() { # FOLDER
    mkdir -p "$1"
    local rule name first second selection number=1
    for rule in \
        'rbac-change|objectRef.apiGroup: rbac.authorization.k8s.io|verb: [create, update, patch, delete]' \
        'anonymous-access|user.username: system:anonymous|' \
        'secret-read|objectRef.resource: secrets|verb: [get, list, watch]' \
        'pod-exec|objectRef.resource: pods|objectRef.subresource: exec'; do
        IFS='|' read -r name first second <<< "$rule"
        selection="    $first"
        if [ -n "$second" ]; then selection+=$'\n'"    $second"; fi
        cat > "$1/$name.yml" << RULE
title: $name
id: 6f0c3b1e-8a5d-4f1c-9b57-00000000000$number
status: test
logsource:
  product: kubernetes
  service: audit
detection:
  selection:
$selection
  condition: selection
level: medium
RULE
        number=$((number + 1))
    done
}

# ----------------------------------------------------------------------------------------------------------------------
# Programs. `command_of` sets `cmd`. Standard output goes through a pipe to /dev/null: a program that sees /dev/null itself may
# stop at the first match, as grep does.

duckdb_python=
for python in python3 "${DUCKDB_PYTHON:-python3}"; do
    if have "$python" && "$python" -c 'import duckdb' 2> /dev/null; then duckdb_python=$python; fi
done

programs=(wc lapwing-1 lapwing-2 value grep)
if have rg; then programs+=(rg); fi
if have duckdb || [ -n "$duckdb_python" ]; then programs+=(duckdb); fi
if have jq; then programs+=(jq); fi
if have rsigma; then programs+=(rsigma); fi

command_of() { # PROGRAM FILE...
    local program=$1
    shift
    case $program in
        wc) cmd=(wc -l "$1") ;;
        lapwing-*) cmd=("$lapwing" replay --threads "${program#lapwing-}" --output jsonl --summary none "$@") ;;
        value) cmd=("$bin/examples/value" "$1") ;;
        grep) cmd=(grep -cE "$regex" "$1") ;;
        rg) cmd=(rg -c "$regex" "$1") ;;
        jq) cmd=(jq -c "$jq_filter" "$1") ;;
        rsigma) cmd=(rsigma engine eval --rules "$work/rules" --event "@$1") ;;
        duckdb)
            if have duckdb; then
                cmd=(duckdb -c "$(duckdb_query "$1")")
            else
                cmd=("$duckdb_python" -c 'import duckdb, sys; duckdb.execute(sys.argv[1])' "$(duckdb_query "$1")")
            fi
            ;;
        decode) cmd=("$bin/examples/decode" "$@") ;;
        gzip) cmd=(sh -c 'gzip -dc "$1" & gzip -dc "$2"; wait' sh "$@") ;;
        zstd) cmd=(sh -c 'zstd -dcq "$1" & zstd -dcq "$2"; wait' sh "$@") ;;
        *) say "no such program: $program"; return 1 ;;
    esac
}

title_of() { # PROGRAM
    case $1 in
        wc) echo '`wc -l`' ;;
        lapwing-1) echo '**lapwing replay**, 1 thread' ;;
        lapwing-*) echo "**lapwing replay**, ${1#lapwing-} threads" ;;
        value) echo '`serde_json::Value` of each line, 1 thread' ;;
        grep) echo '`grep -cE`, 4 questions as a regex' ;;
        rg) echo '`rg -c`, the same regex' ;;
        duckdb) echo 'DuckDB, 4 questions, types given, 2 threads' ;;
        jq) echo '`jq -c`, 4 questions' ;;
        rsigma) echo '`rsigma engine eval`, 4 rules' ;;
        decode) echo 'the same decoders and nothing else, a thread a file' ;;
        gzip) echo '`gzip -dc`, both at once' ;;
        zstd) echo '`zstd -dc`, both at once' ;;
    esac
}

# Appends `GROUP PROGRAM seconds processor-seconds peak-KiB` to the results; the last two are `-` if nothing can tell.
if [ -x /usr/bin/time ] && /usr/bin/time -f %M true 2> /dev/null; then
    meter=(/usr/bin/time -f '%U %S %M' -o "$work/meter")
elif have python3; then
    meter=(python3 -c '
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
open(sys.argv[1], "w").write(f"{used.ru_utime:.2f} {used.ru_stime:.2f} {used.ru_maxrss}\n")
sys.exit(status)' "$work/meter")
else
    meter=()
fi

run_once() { # GROUP PROGRAM FILE...
    local group=$1 program=$2
    shift 2
    local cmd start end
    command_of "$program" "$@"
    printf -- '- - -\n' > "$work/meter"
    start=${EPOCHREALTIME/./}
    if ! "${meter[@]}" "${cmd[@]}" < /dev/null 2> "$work/stderr" | cat > /dev/null; then
        # grep and its like leave with 1 when nothing matches.
        if [ -s "$work/stderr" ]; then
            say "  $program failed: $(head -n 1 "$work/stderr")"
            return
        fi
    fi
    end=${EPOCHREALTIME/./}
    tail -n 1 "$work/meter" | awk -v group="$group" -v program="$program" -v wall="$((end - start))" \
        '{ print group, program, wall / 1e6, ($1 == "-" ? "-" : $1 + $2), $3 }' >> "$results"
}

# Runs all programs in turns: what else the machine does falls on all of them alike.
run_group() { # GROUP "PROGRAM..." FILE...
    local group=$1 names=$2 run program
    shift 2
    cat -- "$@" > /dev/null
    for ((run = 1; run <= runs; run++)); do
        for program in $names; do
            if [[ $program =~ $only ]]; then
                say "$group: run $run of $runs: $program"
                run_once "$group" "$program" "$@"
            fi
        done
    done
}

# ----------------------------------------------------------------------------------------------------------------------
# Tables

# The median of a program's column in a group: 3 for seconds, 4 for processor seconds, 5 for KiB.
median() { # GROUP PROGRAM COLUMN
    awk -v group="$1" -v program="$2" -v column="$3" '$1 == group && $2 == program { print $column }' "$results" \
        | sort -n | awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)] }'
}

ratio() { # A B: A / B, or nothing
    awk -v a="${1:-0}" -v b="${2:-0}" 'BEGIN { if (a > 0 && b > 0) printf a / b < 10 ? "%.2f" : "%.0f", a / b; else print "" }'
}

times() { ratio "$@" | sed 's/.$/&x/'; }

rate() { # BYTES SECONDS: MB/s, or nothing
    awk -v bytes="$1" -v seconds="$2" 'BEGIN { if (seconds > 0) printf "%.0f", bytes / seconds / 1e6 }'
}

# One row a program that ran. The last two columns say how many times as fast lapwing is.
table() { # GROUP "PROGRAM..." BYTES
    local group=$1 names=$2 bytes=$3 program wall cpu rss
    local floor value one two
    floor=$(median "$group" wc 3)
    value=$(median "$group" value 3)
    one=$(median "$group" lapwing-1 3)
    two=$(median "$group" lapwing-2 3)
    echo '| program | MB/s | MB per processor second | seconds | peak MiB | share of `wc -l` | times `Value` | lapwing, 1 thread | lapwing, 2 threads |'
    echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|'
    for program in $names; do
        wall=$(median "$group" "$program" 3)
        if [ -z "$wall" ]; then continue; fi
        cpu=$(median "$group" "$program" 4)
        rss=$(median "$group" "$program" 5)
        printf '| %s | %s | %s | %.2f | %s | %s | %s | %s | %s |\n' "$(title_of "$program")" \
            "$(rate "$bytes" "$wall")" "$(rate "$bytes" "$cpu")" "$wall" \
            "$(awk -v kib="$rss" 'BEGIN { if (kib != "-") printf "%.0f", kib / 1024 }')" \
            "$(ratio "$floor" "$wall")" "$(ratio "$value" "$wall")" \
            "$(times "$wall" "$one")" "$(times "$wall" "$two")"
    done
    echo
}

header() {
    local dirty=
    if [ -n "$(git status --porcelain 2> /dev/null)" ]; then dirty=' with local changes'; fi
    echo "- commit: $(git rev-parse --short=12 HEAD 2> /dev/null || echo unknown)$dirty"
    echo "- date: $(date -u +%Y-%m-%d)"
    echo "- processor: $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), $(nproc) cores;" \
        "L2 $(lscpu | sed -n 's/^L2 cache: *//p'), L3 $(lscpu | sed -n 's/^L3 cache: *//p');" \
        "hypervisor: $(lscpu | sed -n 's/^Hypervisor vendor: *//p' | grep . || echo none)"
    echo "- memory: $(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); kernel $(uname -r)"
    echo "- $(rustc --version)"
    echo "- logs of $size, archives of $archive_size of text, in the page cache; medians of $runs runs taken in turns"
    echo "- load average before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    local version
    for version in 'grep --version' 'rg --version' 'jq --version' 'rsigma --version' 'gzip --version' 'zstd --version'; do
        if have "${version%% *}"; then echo "- $($version 2> /dev/null | head -n 1)"; fi
    done
    if have duckdb; then
        echo "- DuckDB $(duckdb --version)"
    elif [ -n "$duckdb_python" ]; then
        echo "- DuckDB $("$duckdb_python" -c 'import duckdb; print(duckdb.__version__)') (Python module)"
    fi
    echo
}

# ----------------------------------------------------------------------------------------------------------------------
# What is measured

corpus() { # FILE, then options of the generator
    local file=$1
    shift
    say "writing $file"
    "$bin/examples/corpus" "$@" --out "$file" 2> "$work/counts" || { cat "$work/counts" >&2; exit 1; }
}

measure_logs() {
    local profile
    for profile in metadata mixed; do
        corpus "$scratch/$profile.log" --profile "$profile" --size "$size"
        run_group "$profile" "${programs[*]}" "$scratch/$profile.log"
        echo "## $profile: $(bytes_of "$scratch/$profile.log") bytes, $(lines_of "$scratch/$profile.log") events"
        echo
        table "$profile" "${programs[*]}" "$(bytes_of "$scratch/$profile.log")"
    done
    corpus "$scratch/suspicious.log" --profile mixed --suspicious 0.1 --size "$size"
    run_group suspicious 'wc lapwing-1 lapwing-2 value' "$scratch/suspicious.log"
    echo "## mixed, 10 % of the lines suspicious: $(lines_of "$scratch/suspicious.log") events"
    echo
    table suspicious 'wc lapwing-1 lapwing-2 value' "$(bytes_of "$scratch/suspicious.log")"
    rm -- "$scratch/suspicious.log"
}

measure_archives() {
    local profile packer suffix group seed files bytes names share
    for profile in metadata mixed; do
        for packer in gzip zstd; do
            if ! have "$packer"; then continue; fi
            suffix=gz
            if [ "$packer" = zstd ]; then suffix=zst; fi
            group=$profile-$suffix
            files=()
            bytes=0
            for seed in 2 3; do
                corpus "$work/$seed.log" --profile "$profile" --seed "$seed" --size "$archive_size"
                bytes=$((bytes + $(bytes_of "$work/$seed.log")))
                "$packer" -c < "$work/$seed.log" > "$work/$seed.log.$suffix"
                rm -- "$work/$seed.log"
                files+=("$work/$seed.log.$suffix")
            done
            names="decode $packer lapwing-1 lapwing-2"
            run_group "$group" "$names" "${files[@]}"
            echo "## $profile, two $packer archives: $bytes bytes of text, $(cat "${files[@]}" | wc -c) packed"
            echo
            table "$group" "$names" "$bytes"
            share=$(ratio "$(median "$group" decode 3)" "$(median "$group" lapwing-2 3)")
            echo "lapwing with 2 threads reads at ${share:-?} times the bare decoders' rate."
            echo
            rm -- "${files[@]}"
        done
    done
}

# A file of one line that alerts, from start to end: the alert stands there when the process ends.
measure_start() {
    local run
    grep -m 1 '"subresource":"exec"' "$scratch/mixed.log" > "$work/one.log" || true
    if [ -z "$("$lapwing" replay --output jsonl --summary none "$work/one.log")" ]; then
        say 'the one line does not alert: start-up is not measured'
        return
    fi
    for ((run = 1; run <= 20; run++)); do run_once start lapwing-2 "$work/one.log"; done
    echo '## Start-up'
    echo
    median start lapwing-2 3 | awk '{ printf "One line in, its alert out, process ended: %.0f ms, median of 20.\n\n", $1 * 1000 }'
}

instructions() { # FILE: instructions of a whole run on one thread
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        "$lapwing" replay --threads 1 --output jsonl --summary none "$1" 2>&1 > /dev/null \
        | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

measure_instructions() {
    if ! have valgrind; then return; fi
    local profile n counted=() events=()
    echo '## Instructions per event'
    echo
    echo '| profile | whole run, 5 MB | steady state (25 MB less 20 MB) |'
    echo '|---|--:|--:|'
    for profile in metadata mixed; do
        counted=()
        events=()
        for n in 5 20 25; do
            corpus "$work/sample.log" --profile "$profile" --size "${n}MB"
            say "callgrind: $profile, $n MB"
            counted+=("$(instructions "$work/sample.log")")
            events+=("$(lines_of "$work/sample.log")")
        done
        awk -v profile="$profile" -v c5="${counted[0]}" -v c20="${counted[1]}" -v c25="${counted[2]}" \
            -v e5="${events[0]}" -v e20="${events[1]}" -v e25="${events[2]}" 'BEGIN {
                printf "| %s | %.0f | %.0f |\n", profile, c5 / e5, (c25 - c20) / (e25 - e20)
            }'
    done
    echo
}

say 'building'
cargo build --release --bin lapwing --example corpus --example value --example decode >&2
if have rsigma; then write_sigma_rules "$work/rules"; fi

header
measure_logs
measure_archives
measure_start
measure_instructions
echo "Load average after: $(cut -d ' ' -f 1-3 /proc/loadavg)"
