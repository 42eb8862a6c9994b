#!/bin/sh
# Builds the guests of this directory from their sources with clang, wasi-libc
# and wabt. With an argument it builds them into that directory instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
cd "$here"
for source in *.c; do
	clang --target=wasm32-wasi --sysroot=/usr -O2 -Wall -Werror -s -o "$out/${source%.c}.wasm" "$source"
done
for source in *.wat; do
	wat2wasm -o "$out/${source%.wat}.wasm" "$source"
done
