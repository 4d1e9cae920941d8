#!/bin/sh
# Proves that a fresh machine needs nothing but the README's commands: copies the committed tree into a bare
# Debian of the suite named, made with debootstrap, and runs them there. The bare system itself is never
# written to (everything happens on an overlay that is thrown away), so a second run starts as bare as the first.
#
#   spec/debian.sh SUITE DIR [COMMAND...]   SUITE: bookworm, trixie. DIR: the bare system, made if missing.
#
# COMMAND: what to run at the top of the tree instead of the README's commands, e.g. `./dev build`.
# MIRROR in the environment is handed to debootstrap. Needs root, debootstrap, unshare and overlay mounts.
set -eu

say() { printf 'debian.sh: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# Second half: inside a mount namespace of our own, so that nothing needs to be unmounted afterwards.
if [ "${1:-}" = --inside ]; then
  root=$2 scratch=$3
  shift 3
  mount -t tmpfs -o size=4g tmpfs "$scratch"
  mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
  mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
  mount -t proc proc "$scratch/root/proc"
  mount --rbind /dev "$scratch/root/dev"
  cp -L /etc/resolv.conf "$scratch/root/etc/resolv.conf"
  mkdir "$scratch/root/root/kiln"
  tar -x -C "$scratch/root/root/kiln"
  # shellcheck disable=SC2016 # for the shell inside
  exec chroot "$scratch/root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 sh -c 'cd /root/kiln && . /etc/os-release && echo "$PRETTY_NAME, $(nproc) cores" && exec "$@"' \
    sh "$@" </dev/null
fi

[ $# -ge 2 ] || die 'usage: spec/debian.sh SUITE DIR [COMMAND...]'
suite=$1 dir=$2
shift 2
[ "$(id -u)" -eq 0 ] || die 'needs root, for chroot'
for tool in git unshare chroot; do
  command -v "$tool" >/dev/null || die "needs $tool"
done
top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

if [ ! -e "$dir/etc/debian_version" ]; then
  command -v debootstrap >/dev/null || die "needs debootstrap to make $dir"
  say "making a bare $suite in $dir"
  debootstrap "$suite" "$dir" ${MIRROR:+"$MIRROR"} >&2
fi
dir=$(CDPATH='' cd -- "$dir" && pwd -P)
found=$(sed -n 's/^VERSION_CODENAME=//p' "$dir/etc/os-release")
[ "$found" = "$suite" ] || die "$dir holds $found, not $suite"

scratch=$(mktemp -d)
trap 'rmdir "$scratch"' EXIT
[ $# -gt 0 ] || set -- sh -c './dev run samples/digits.lua && ./dev test'
say "$suite, the tree of $(git -C "$top" log -1 --format=%h): $*"
git -C "$top" archive HEAD |
  unshare --mount --pid --fork --kill-child sh "$top/spec/debian.sh" --inside "$dir" "$scratch" "$@"
