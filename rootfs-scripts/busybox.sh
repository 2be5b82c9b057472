#!/bin/sh
# busybox.sh DIR
#
# Makes a root filesystem in DIR from one program: this machine's busybox, with a link for each of
# its commands. Nothing is downloaded.

set -u
here=$(dirname "$0")
# shellcheck source=rootfs-scripts/aside.sh
. "$here/aside.sh"
help_or_go_on "$@"

busybox=$(command -v busybox) ||
    die "busybox isn't on this machine; Debian and Ubuntu have it as: apt-get install busybox-static"

begin "$1"
# A dynamic busybox needs its loader and libraries, and a static one nothing: that script knows.
"$here/from-host.sh" "$new" "$busybox" || exit 1
mkdir -p "$new/bin" "$new/sbin"
# The names may be links to directories here, as /bin is on most machines: they stay.
for command in $(busybox --list); do
    for directory in bin sbin; do
        [ ! -e "$new/$directory/$command" ] || continue 2
    done
    ln -s "$busybox" "$new/bin/$command" || exit 1
done
finish
