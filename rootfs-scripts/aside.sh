# shellcheck shell=sh
# Sourced by the scripts beside it: a root filesystem is built aside and gets its name when it is
# whole, so that nobody ever meets half of one.
#
#   help_or_go_on "$@"   prints the calling script's first comment when that is asked for
#   begin DIR            makes the empty directory $new beside DIR; it goes away on any failure
#   finish               renames $new to DIR
#   on_failure           what else has to go away on a failure; a script may have one of its own

# The caller's name stands before what it has to say; a terminal obeys nothing of it.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" | LC_ALL=C tr '\001-\011\013-\037\177' '?' >&2
}

die() {
    say "$*"
    exit 1
}

help_or_go_on() {
    case ${1-} in
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        '' | -*)
            say "${1:-no directory given}${1:+: no such option}; see $0 --help"
            exit 2
            ;;
    esac
}

on_failure() { :; }

begin() {
    dir=${1%/}
    [ -n "$dir" ] || die "/ is this machine's own root: name a directory for the new one"
    if [ -L "$dir" ] || { [ -e "$dir" ] && [ ! -d "$dir" ]; }; then
        die "$dir exists and is no directory"
    fi
    if [ -d "$dir" ] && [ -n "$(ls -A "$dir")" ]; then
        die "$dir exists and isn't empty: remove it first, or name another"
    fi
    umask 022
    parent=$(dirname "$dir")
    mkdir -p "$parent" || exit 1
    new=$(mktemp -d "$parent/.${dir##*/}.XXXXXX") || exit 1
    trap 'rm -rf "$new"; on_failure' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 131' QUIT
    trap 'exit 141' PIPE
    trap 'exit 143' TERM
    chmod 755 "$new"
}

finish() {
    if [ -d "$dir" ]; then
        rmdir "$dir" || die "$dir isn't empty any more"
    fi
    mv "$new" "$dir" || die "can't rename $new to $dir"
    trap - EXIT
}
