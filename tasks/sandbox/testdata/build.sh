#!/bin/sh
# Rebuilds the guests of this directory from their sources with clang, lld,
# wasi-libc and wabt. With -check it compares instead and changes nothing.
set -eu
cd "$(dirname "$0")"
case "${1-}" in
"") target=. ;;
-check) target=$(mktemp -d) && trap 'rm -rf "$target"' EXIT ;;
*)
	echo "usage: build.sh [-check]" >&2
	exit 2
	;;
esac
for source in *.c; do
	clang --target=wasm32-wasi --sysroot=/usr -O2 -Wall -Werror -s -o "$target/${source%.c}.wasm" "$source"
done
for source in *.wat; do
	wat2wasm -o "$target/${source%.wat}.wasm" "$source"
done
seen=0 stale=
for module in *.wasm; do
	seen=$((seen + 1))
	cmp -s "$target/$module" "$module" || stale="$stale $module"
done
[ "$seen" -gt 0 ] || { echo "build.sh: no module found" >&2; exit 1; }
[ -z "$stale" ] || { echo "build.sh: out of date:$stale" >&2; exit 1; }
echo "sandbox tests: $seen modules as built from their sources"
