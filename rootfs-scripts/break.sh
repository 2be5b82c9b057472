#!/bin/sh
# break.sh KIND DIR
#
# Breaks the root filesystem DIR, which should be a copy, in one known way. Prints the command that
# fails in it from now on; what was done to it is told on standard error. KIND is one of
#
#   missing-loader         the loader that a program asks for (PT_INTERP) isn't there
#   dangling-loader-link   it is a link, and leads nowhere
#   missing-library        the loader is there, and doesn't find a library
#   bad-shebang            the interpreter of a script isn't there
#   crlf-shebang           the script's first line ends as lines do on Windows
#   no-shebang             the script doesn't say what runs it
#   wrong-machine          the program is for another processor
#   not-executable         the program has no x bit
#   noexec-mount           the program lies on a mount that forbids to run it (needs root)
#   symlink-out            the program is a link to a path that only this machine has

set -u
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=rootfs-scripts/aside.sh
. "$here/aside.sh"
# shellcheck source=rootfs-scripts/follow.sh
. "$here/follow.sh"
help_or_go_on "$@"
[ $# -eq 2 ] || die "takes a kind and a directory; see $0 --help"
kind=$1
# Whatever it is called, and whatever links lead there: not the root of this machine.
root=$(cd "$2" && pwd -P) || die "$2 is no directory"
# shellcheck disable=SC3013 # dash, bash and busybox all have -ef
if [ "$root" -ef / ]; then
    die "$2 is this machine's own root: break a copy"
fi
[ -d "$root/proc" ] || die "$2 isn't a root filesystem: it has no directory proc"

# strings_of FILE PATTERN: the first text in FILE that matches, between two NUL bytes.
strings_of() {
    tr '\000' '\n' <"$1" | LC_ALL=C grep -a "$2" | head -n 1
}

# Sets $program, the path of a program in the root, $loader, what it asks for, and $file, where that
# lies.
dynamic_program() {
    follow "$root" /bin/ls || die "$root has no /bin/ls to break"
    program=$real
    loader=$(strings_of "$root$program" '^/[!-~]*/ld[!-~]*\.so[.0-9]*$')
    [ -n "$loader" ] ||
        die "$root$program is static, so it needs no loader: make a root with from-host.sh"
    follow "$root" "$loader" || die "$root is broken already: $loader isn't there"
    file=$real
}

# Sets $place, where the name of the loader lies, which may be a link.
place_of_loader() {
    follow "$root" "${loader%/*}" || die "$root is broken already: $loader isn't there"
    place=$real/${loader##*/}
}

# directory NAME...: makes the directory /NAME/... of the root where it is missing, and sets $lies, where that is. A link in
# the root leads inside the root, wherever it leads on this machine. Nothing is printed and read again: that would take
# newlines away, and a name with one less is another.
directory() {
    lies=''
    for part in "$@"; do
        if follow "$root" "$lies/$part"; then
            lies=$real
        else
            mkdir "$root$lies/$part" || exit 1
            lies=$lies/$part
        fi
        [ -d "$root$lies" ] || die "$root$lies is no directory"
    done
}

# fresh NAME: sets $command, /usr/local/bin/NAME, and $new, where that lies and nothing is by now.
fresh() {
    command=/usr/local/bin/$1
    directory usr local bin
    new=$root$lies/$1
    rm -f "$new" || exit 1
}

# script NAME LINE...: an executable script of these lines, /usr/local/bin/NAME.
script() {
    fresh "$1"
    shift
    printf '%s\n' "$@" >"$new" || exit 1
    chmod 755 "$new"
}

# copy NAME: a copy of the root's ls, /usr/local/bin/NAME.
copy() {
    follow "$root" /bin/ls || die "$root has no /bin/ls to break"
    program=$real
    fresh "$1"
    cp "$root$program" "$new" || exit 1
}

command=/bin/ls
case $kind in
    missing-loader)
        dynamic_program
        place_of_loader
        rm "$root$file" || exit 1
        # The links that led to it go too.
        [ ! -L "$root$place" ] || rm "$root$place"
        say "removed $loader, the loader of $program"
        ;;
    dangling-loader-link)
        dynamic_program
        place_of_loader
        rm "$root$file" || exit 1
        if [ ! -L "$root$place" ]; then
            file=${place%/*}/ld-2.31.so
            ln -s "${file##*/}" "$root$place" || exit 1
        fi
        say "removed $file, to which the link $place leads"
        ;;
    missing-library)
        dynamic_program
        library=$(strings_of "$root$program" '^lib[!-~]*\.so[.0-9]*$')
        [ -n "$library" ] || die "$root$program names no library"
        find "$root" -xdev -name "$library*" ! -type d -exec rm {} + || exit 1
        say "removed $library, which $program needs"
        ;;
    bad-shebang)
        script greet '#!/usr/bin/pyhton3' 'print("hello")'
        say "made $command, whose first line names /usr/bin/pyhton3"
        ;;
    crlf-shebang)
        script greet "$(printf '#!/bin/sh\r')" "$(printf 'echo hello\r')"
        say "made $command, with a carriage return at the end of each line"
        ;;
    no-shebang)
        script greet 'echo hello'
        say "made $command, without a #! line"
        ;;
    wrong-machine)
        copy foreign
        # e_machine, two bytes at offset 18 of an ELF header: 183 is AArch64, 62 is x86-64.
        case $(uname -m) in
            aarch64) machine='\076\000' name=x86-64 ;;
            *) machine='\267\000' name=AArch64 ;;
        esac
        # shellcheck disable=SC2059 # the format is the bytes
        printf "$machine" | dd of="$new" bs=1 seek=18 conv=notrunc 2>/dev/null || exit 1
        say "made $command, a program for $name"
        ;;
    not-executable)
        copy tool
        chmod 644 "$new" || exit 1
        say "made $command, with mode 644"
        ;;
    noexec-mount)
        directory mnt noexec
        folder=$root$lies
        mount -t tmpfs -o noexec,mode=755 noexec "$folder" ||
            die "can't mount: this kind needs root"
        copy tool
        mv "$new" "$folder/tool" || exit 1
        command=/mnt/noexec/tool
        say "mounted a tmpfs with noexec; to undo: umount $folder"
        ;;
    symlink-out)
        fresh tool
        ln -s "$here/break.sh" "$new" || exit 1
        say "made $command, a link to $here/break.sh"
        ;;
    *)
        die "$kind: no such kind; see $0 --help"
        ;;
esac
printf '%s\n' "$command"
