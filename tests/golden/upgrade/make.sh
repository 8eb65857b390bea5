#!/usr/bin/env bash
# Makes a state and a store with a tcfs of any version, to be opened by later ones (tests/cli_life/upgrade.rs):
#   tests/golden/upgrade/make.sh PATH-TO-TCFS OUT.tar.xz
# first.tar.xz was made with 35a26c5 (2026-11-24), the first version in which all of it works.
# Two machines, ann and bob, on one store; ann's state is kept. As she left it: published files, one of them in many
# chunks, an older version of one, a removed one, links, attributes, a conflict, a pin; and changes that she made while the
# store was away.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
tcfs=$(realpath "$1")
out=$(realpath -m "$2")
dir=$(mktemp -d /var/tmp/tcfs-fx.XXXXXX)
mkdir "$dir/store" "$dir"/{ann,bob} "$dir"/{ann,bob}/{home,mnt}

on() {
    local who=$1
    shift
    env -u XDG_RUNTIME_DIR HOME="$dir/$who/home" TCFS_STATE_DIR="$dir/$who/state" TCFS_STORE="file://$dir/store" \
        TCFS_DEVICE_NAME="$who" "$tcfs" "$@"
}
finish() {
    for who in ann bob; do on "$who" unmount "$dir/$who/mnt" >/dev/null 2>&1 || true; done
    rm -rf "$dir"
}
trap finish EXIT

on ann mount "$dir/ann/mnt"
on bob mount "$dir/bob/mnt"
a=$dir/ann/mnt b=$dir/bob/mnt
cd "$a"
mkdir -p notes src/empty 'with space'
echo 'first plan' >notes/plan.md
echo 'changed on both' >both.md
echo 'to be removed' >gone.txt
echo 'to be moved' >src/old-name
seq -f '%064.0f' 40000 >src/big.txt
printf '#!/bin/sh\necho run\n' >src/run.sh && chmod 755 src/run.sh
ln -s ../notes/plan.md src/link
echo 'two names' >src/one && ln src/one src/two
echo 'ünïcode' >'with space/日本.txt'
setfattr -n user.note -v 'kept' notes/plan.md
touch -d '2020-02-03 04:05:06 UTC' src/run.sh
on ann wait >/dev/null
echo 'second plan' >notes/plan.md
rm gone.txt
on ann pin "$a/notes" >/dev/null
on ann wait >/dev/null
until [ "$(cat "$b/notes/plan.md" 2>/dev/null)" = 'second plan' ] && [ -e "$b/src/two" ]; do sleep 0.2; done

# Apart: the store is away. Then bob's side goes out.
mv "$dir/store" "$dir/away"
echo 'as ann has it' >both.md
echo "bob's" >"$b/both.md"
sleep 2
mv "$dir/away" "$dir/store"
on ann wait >/dev/null
on bob wait >/dev/null
until cat both.conflict-bob.md >/dev/null 2>&1; do sleep 0.2; done

# What ann has not published yet.
mv "$dir/store" "$dir/away"
echo 'third plan' >notes/plan.md
echo 'never published' >notes/new.md
seq -f '%064.0f' 5000 >>src/big.txt
mv src/old-name src/new-name
rm 'with space/日本.txt'
mkdir src/made && echo 'in it' >src/made/file
sync -f .
sleep 3
cd /
"$here/seen.sh" "$a" >"$dir/seen"
on ann unmount "$a"
mv "$dir/away" "$dir/store"
on bob unmount "$b"
rm -rf "$dir"/ann/{home,mnt} "$dir/bob" "$dir"/ann/state/{cache,log,reserve}
tar -C "$dir" --sort=name --owner=0 --group=0 --numeric-owner -cJf "$out" ann seen store
cat "$dir/seen"
ls -l "$out"
