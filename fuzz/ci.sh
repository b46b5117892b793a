#!/usr/bin/env bash
# Fuzzes each target for some seconds, 6 unless told otherwise: `fuzz/ci.sh [SECONDS]`, from anywhere. What does harm is kept in
# fuzz/artifacts; once it is mended it belongs into fuzz/corpus, where `cargo test` runs it for ever after.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-6}"

if ! cargo fuzz --version > /dev/null 2>&1; then
    cargo install cargo-fuzz --version 0.13.2 --locked
fi

# Without a sanitizer any toolchain will do, and in a workspace that forbids unsafe code there is little for one to find. Whole-program
# optimisation would be paid for once for each target.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
build=(--sanitizer none --features libfuzzer)
cargo fuzz build "${build[@]}"

# A journal's directory in memory is megabytes that come and go with each input: the allocator is not to give them back in between.
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824

grown="$(mktemp -d)"
trap 'rm -rf "$grown"' EXIT
for target in $(cargo fuzz list); do
    mkdir "$grown/$target"
    # New inputs go into the first folder, which nobody keeps.
    cargo fuzz run "${build[@]}" "$target" "$grown/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -len_control=20 -print_final_stats=1 > "$grown/log" 2>&1 || {
        cat "$grown/log"
        echo "fuzzing $target found something" >&2
        exit 1
    }
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$grown/log") executions"
done
