#!/bin/sh
# docker-export.sh IMAGE DIR
#
# Makes a root filesystem in DIR from a container image: what a container of IMAGE sees, with
# links, owners and modes. Uses docker, or podman where that is what the machine has; DOCKER=NAME
# names another program with their commands. Needs root for the owners.

set -u
here=$(dirname "$0")
# shellcheck source=rootfs-scripts/aside.sh
. "$here/aside.sh"
help_or_go_on "$@"
[ $# -eq 2 ] || die "takes an image and a directory; see $0 --help"

docker=${DOCKER-}
for name in docker podman; do
    [ -n "$docker" ] || docker=$(command -v "$name")
done
[ -n "$docker" ] || die "neither docker nor podman is on this machine; DOCKER=NAME names another"
[ "$(id -u)" = 0 ] || say "without root every file will belong to you: sudo $0 $*"

# holds_links_and_modes DIR: whether this file system can hold a root. A folder that a virtual
# machine shares from Windows can't: links become copies or vanish, and every file is executable.
holds_links_and_modes() {
    : >"$1/.probe" && chmod 640 "$1/.probe" && ln -s .probe "$1/.link" 2>/dev/null &&
        [ -L "$1/.link" ] && [ "$(stat -c %a "$1/.probe")" = 640 ]
    holds=$?
    rm -f "$1/.probe" "$1/.link"
    return "$holds"
}

begin "$2"
holds_links_and_modes "$new" ||
    say "warning: the file system of $2 can't hold links and modes; programs in there may not start"

container=$("$docker" create "$1" sh) || die "no container could be made from $1"
on_failure() {
    [ -z "$container" ] || "$docker" rm "$container" >/dev/null ||
        say "the container is still there: $docker rm $container"
}
# The pipe's own status is tar's; a failed export leaves a broken archive, and tar says so.
"$docker" export "$container" | tar -x -p --numeric-owner -C "$new" ||
    die "the image $1 couldn't be unpacked"
[ -n "$(ls -A "$new")" ] || die "the image $1 is empty"
on_failure
container=
finish
