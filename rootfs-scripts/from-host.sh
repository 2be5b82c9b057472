#!/bin/sh
# from-host.sh DIR [PROGRAM...]
#
# Makes a root filesystem in DIR from this machine's own programs: each with the loader and the
# libraries that it asks for, and with every link on the way, so that each path that works here
# works inside DIR too. PROGRAM is a name or a path; without one it is a shell and what the chapters
# use, as far as this machine has it. Nothing is downloaded. The files copied are listed in
# DIR/etc/from-host.

set -u
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$0")
# shellcheck source=rootfs-scripts/aside.sh
. "$here/aside.sh"
# shellcheck source=rootfs-scripts/follow.sh
. "$here/follow.sh"
help_or_go_on "$@"

# Those that every machine has, and those that only most have.
common='sh ls cat ps kill mount umount hostname id env sleep touch mkdir rm ln grep head tail wc yes
    true false stat readlink dd tty stty cp mv chmod chown mknod chroot uname sort sed tr cut'
extra='bash ip'

# bring PATH: copies the file, and each directory and link that leads to it, into $new. Sets $real to
# its path without links. Fails when there is no such file.
bring() {
    follow / "$1"
}

on_the_way() {
    if [ -L "$1" ]; then
        [ -L "$new$1" ] || ln -s "$(readlink "$1")" "$new$1" || exit 1
    elif [ -d "$1" ]; then
        [ -d "$new$1" ] || mkdir "$new$1" || exit 1
    elif [ ! -e "$new$1" ]; then
        # In a user namespace a file of the host's root belongs to nobody, and its owner can't be kept.
        cp -p "$1" "$new$1" 2>/dev/null || cp "$1" "$new$1" || exit 1
        printf '%s\n' "$1" >>"$new/etc/from-host"
    fi
}

# locate NAME: prints the path of a program.
locate() {
    case $1 in
        */*)
            [ -x "$1" ] && echo "$(cd "$(dirname "$1")" && pwd -P)/${1##*/}"
            return
            ;;
    esac
    IFS=:
    for directory in /bin /usr/bin /sbin /usr/sbin $PATH; do
        if [ -f "$directory/$1" ] && [ -x "$directory/$1" ]; then
            echo "$directory/$1"
            return
        fi
    done
    return 1
}

# bring_program NAME: the program, and the interpreter of a script. Adds ELF files to $programs, one
# a line.
bring_program() {
    path=$(locate "$1") || return 1
    bring "$path" || return 1
    case $(head -c 2 "$real" | tr -d '\000') in
        '#!')
            # "#!/bin/sh -e" takes one program, "#!/usr/bin/env -S bash -e" two. From here on "$@"
            # are the words of that line, and stay so while this function calls itself.
            # shellcheck disable=SC2046 # the words, apart
            set -- $(head -n 1 "$real" | tr -d '\r' | sed 's/^#! *//')
            bring_program "$1" || die "$path: its interpreter $1 isn't there"
            [ "${1##*/}" = env ] || return 0
            shift
            while case ${1-} in -* | *=*) true ;; *) false ;; esac do
                shift
            done
            [ $# = 0 ] || bring_program "$1" || die "$path: its interpreter $1 isn't there"
            ;;
        *)
            programs="$programs$real
"
            ;;
    esac
}

# bring_libraries: what the loader would map for $programs. `ldd` names the loader as the program
# does (PT_INTERP), and each library by the path at which the loader finds it.
bring_libraries() {
    command -v ldd >/dev/null || die "ldd isn't there; it comes with the C library (package libc-bin)"
    # One by one: musl's ldd takes the words behind the first for the program's. Of a static program
    # ldd says that it isn't dynamic, and fails.
    printf '%s' "$programs" | while IFS= read -r program; do
        ldd "$program" 2>/dev/null
    done >"$new/.ldd"
    missing=$(sed -n 's/^[[:space:]]*\(.*\) => not found.*/\1/p' "$new/.ldd" | sort -u)
    [ -z "$missing" ] || die "the loader doesn't find, here on this machine:" "$missing"
    sed -n -e 's/^.*=> \(\/.*\) (0x[0-9a-f]*)$/\1/p' \
        -e 's/^[[:space:]]*\(\/.*\) (0x[0-9a-f]*)$/\1/p' "$new/.ldd" | sort -u >"$new/.libraries"
    while IFS= read -r library; do
        bring "$library" || die "$library: ldd names it, and it isn't there"
        printf '%s\n' "${library%/*}" >>"$new/.directories"
        # An older glibc loads this one only when a user's name is looked up.
        case $library in
            */libc.so.6) bring "${library%/*}/libnss_files.so.2" || true ;;
        esac
    done <"$new/.libraries"
    # Libraries in a directory that isn't built into glibc's loader are found through its cache.
    if [ -e "$new/.directories" ] && [ -e /etc/ld.so.cache ] && command -v ldconfig >/dev/null; then
        sort -u "$new/.directories" >"$new/etc/ld.so.conf"
        ldconfig -X -r "$new" || say "ldconfig failed: a program may not find its libraries"
    fi
    rm -f "$new/.ldd" "$new/.libraries" "$new/.directories"
}

begin "$1"
shift
mkdir -p "$new/etc" "$new/proc" "$new/sys" "$new/dev" "$new/run" "$new/root" "$new/tmp" "$new/var/tmp"
chmod 700 "$new/root"
chmod 1777 "$new/tmp" "$new/var/tmp"

# What a shell and the chapters before the fifth expect of /dev. Only root can make devices, and on
# some file systems nobody can.
for device in 'null c 1 3' 'zero c 1 5' 'tty c 5 0'; do
    # shellcheck disable=SC2086 # the words, apart
    mknod -m 666 "$new/dev/"$device 2>/dev/null || break
done

# Where this machine has links, such as /bin -> usr/bin, a script's `#!/bin/sh` needs them.
for directory in /bin /sbin /lib /lib32 /lib64 /usr/bin /usr/sbin; do
    [ ! -d "$directory" ] || bring "$directory"
done

programs=
if [ $# -gt 0 ]; then
    for program in "$@"; do
        bring_program "$program" || die "$program: no such program on this machine"
    done
else
    absent=
    for program in $common; do
        bring_program "$program" || absent="$absent $program"
    done
    # A program that comes to this machine later makes the default root be made again.
    for program in $extra; do
        bring_program "$program" || echo "absent $program" >>"$new/etc/from-host"
    done
    for program in $absent; do
        echo "absent $program" >>"$new/etc/from-host"
    done
    [ -z "$absent" ] || say "not on this machine, so left out:$absent"
fi
bring_libraries

# What the terminal at hand can do, for shells and editors.
for terminal in dumb linux vt100 xterm xterm-256color screen screen-256color tmux tmux-256color; do
    for directory in /etc/terminfo /lib/terminfo /usr/share/terminfo; do
        entry=$directory/$(printf %.1s "$terminal")/$terminal
        [ ! -f "$entry" ] || bring "$entry"
    done
done

cat >"$new/etc/passwd" <<'TEXT'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
TEXT
cat >"$new/etc/group" <<'TEXT'
root:x:0:
tty:x:5:
nogroup:x:65534:
TEXT
cat >"$new/etc/nsswitch.conf" <<'TEXT'
passwd: files
group: files
hosts: files dns
TEXT
finish
