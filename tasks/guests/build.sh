#!/bin/sh
# Builds the guests: src/*.c -> wasm/*.wasm. Needs clang, lld, wasi-libc,
# libclang-rt-dev-wasm32 and wabt, as Debian ships them.
#
#   build.sh          rewrite the committed modules
#   build.sh -check   exit 1 and name the modules that would change
set -eu
cd "$(dirname "$0")"
export LC_ALL=C

target=wasm
case "${1-}" in
'') ;;
-check) target=$(mktemp -d) && trap 'rm -rf "$target"' EXIT ;;
*)
	echo "usage: build.sh [-check]" >&2
	exit 2
	;;
esac

common="--target=wasm32-wasi -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Wl,--strip-all"
# Guests without a C library define _start themselves. A small stack keeps
# their memory at the one or two pages that a fresh instance must be given.
bare="-ffreestanding -fno-builtin -nostdlib -Wl,-z,stack-size=8192"

seen=0 stale=
for source in src/*.c; do
	name=$(basename "$source" .c)
	if grep -q '_start(void)' "$source"; then flags=$bare; else flags=-s; fi
	# shellcheck disable=SC2086 # the flags are lists
	clang $common $flags "$source" -o "$target/$name.wasm"
	wasm-strip "$target/$name.wasm"
	wasm-validate "$target/$name.wasm"
	chmod 644 "$target/$name.wasm"
	seen=$((seen + 1))
	cmp -s "$target/$name.wasm" "wasm/$name.wasm" || stale="$stale $name"
done
for module in wasm/*.wasm; do
	[ -e "src/$(basename "$module" .wasm).c" ] || stale="$stale $(basename "$module" .wasm)(no source)"
done
[ "$seen" -gt 0 ] || { echo "build.sh: no source found" >&2; exit 1; }
[ -z "$stale" ] || { echo "build.sh: out of date:$stale" >&2; exit 1; }
echo "guests: $seen modules as built from their sources"
