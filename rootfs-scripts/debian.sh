#!/bin/sh
# debian.sh [--suite SUITE] DIR
#
# Makes a root filesystem of Debian in DIR, with procps for its ps: the smallest that debootstrap
# makes, from where this machine's apt fetches its packages. SUITE is this machine's own release on
# a Debian, and otherwise stable. Needs root, and debootstrap.

set -u
here=$(dirname "$0")
# shellcheck source=rootfs-scripts/aside.sh
. "$here/aside.sh"
suite=
case ${1-} in
    --suite)
        suite=${2:?"--suite takes the name of a release, such as bookworm"}
        shift 2
        ;;
esac
help_or_go_on "$@"

[ "$(id -u)" = 0 ] || die "debootstrap needs root: sudo $0 $*"
command -v debootstrap >/dev/null ||
    die "debootstrap isn't on this machine; Debian and Ubuntu have it as: apt-get install debootstrap"

distribution=$(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null)
mirror=
if [ "$distribution" = debian ]; then
    [ -n "$suite" ] || suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    # Security updates come from a place of their own, which has no whole release.
    # shellcheck disable=SC2016 # apt fills these in
    mirror=$(apt-get indextargets --format '$(SITE) $(SUITE) $(RELEASE)' 'Created-By: Packages' |
        sed -n "s/ [^ ]* ${suite:-stable}\$//p" | head -n 1)
fi

begin "$1"
on_failure() { rm -f "$new.log"; }
# What debootstrap mounts while it works goes away with this mount namespace, however it ends.
# shellcheck disable=SC2086 # no mirror is no argument
unshare --mount debootstrap --variant=minbase --include=procps \
    "${suite:-stable}" "$new" $mirror >"$new.log" 2>&1 || {
    status=$?
    tail -n 20 "$new.log" >&2
    die "debootstrap failed with status $status; its last lines are above"
}
on_failure
finish
