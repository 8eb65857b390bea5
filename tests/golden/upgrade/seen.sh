#!/usr/bin/env bash
# What is in a directory: mode and checksum of each file, target of each link.
set -euo pipefail
cd "$1"
find . -mindepth 1 -not -path './.tcfs*' ! -type d -printf '%P\n' | LC_ALL=C sort | while read -r f; do
    if [ -L "$f" ]; then echo "link $(readlink "$f")  $f"; else echo "$(stat -c %a "$f") $(md5sum <"$f" | cut -d' ' -f1)  $f"; fi
done
