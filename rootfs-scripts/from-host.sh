#!/bin/sh
# from-host.sh [--small] DIR [PROGRAM...]
#
# Makes a root filesystem in DIR from this machine's own programs: each with the loader and the
# libraries that it asks for, and with every link on the way, so that each path that works here
# works inside DIR too. PROGRAM is a name or a path; without one it is what people type in a shell,
# as far as this machine has it, or, with --small, the few that the chapters need. Nothing is
# downloaded. The files copied are listed in DIR/etc/from-host.

set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$0")
# shellcheck source=rootfs-scripts/aside.sh
. "$here/aside.sh"
# shellcheck source=rootfs-scripts/follow.sh
. "$here/follow.sh"
small=
if [ "${1-}" = --small ]; then
    small=yes
    shift
fi
help_or_go_on "$@"

# What the chapters need: those that every machine has, and those that only most have.
needed='sh ls cat ps kill mount umount hostname id env sleep touch mkdir rm ln grep head tail wc yes
    true false stat readlink dd tty stty cp mv chmod chown mknod chroot uname sort sed tr cut'
common='bash ip'

# What people type besides, package by package.
shells='which clear tput reset getent ldd'
coreutils='[ arch b2sum base32 base64 basename basenc chcon chgrp cksum comm csplit date df dir dircolors
    dirname du echo expand expr factor fmt fold groups hostid install join link logname md5sum mkfifo
    mktemp nice nl nohup nproc numfmt od paste pathchk pinky pr printenv printf ptx pwd realpath rmdir
    runcon seq sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf split stdbuf sum sync tac tee
    test timeout truncate tsort unexpand uniq unlink uptime users vdir who whoami'
findutils='find xargs'
text='egrep fgrep rgrep awk gawk mawk diff cmp less more'
editors='vi nano'
archives='tar gzip gunzip zcat zgrep zless'
procps='free pgrep pidof pidwait pkill pmap pwdx skill slabtop snice sysctl tload top vmstat w watch'
util_linux='addpart agetty blkdiscard blkid blkzone blockdev cal cfdisk chcpu chfn chmem choom chrt chsh
    col colcrt colrm column ctrlaltdel delpart dmesg eject fallocate fdisk fincore findfs findmnt flock
    fsck fsfreeze fstrim getopt hardlink hexdump hwclock ionice ipcmk ipcrm ipcs isosize last lastb
    ldattach line logger login look losetup lsblk lscpu lsfd lsipc lslocks lslogins lsmem lsns mcookie
    mesg mkfs mkswap mountpoint namei newgrp nologin nsenter partx pivot_root prlimit raw readprofile
    rename renice resizepart rev rfkill rtcwake runuser script scriptlive scriptreplay setarch setpriv
    setsid setterm sfdisk su sulogin swaplabel swapoff swapon switch_root taskset uclampset unshare
    utmpdump uuidd uuidgen uuidparse vigr vipw wall wdctl whereis wipefs write zramctl linux32 linux64
    i386 x86_64 ul'
network='bridge ss tc lnstat nstat ifstat rtmon routel ping'

# An editor that asks for more libraries than this has windows of its own, and stays out: the root
# has to stay small.
most_libraries=24

# A process for each link and directory would take longer than all that has to be copied. So what is known of them is
# kept in lines: "LINK<tab>TARGET", and "./DIRECTORY" for those that are to be made.
tab=$(printf '\t')
newline='
'
known=$newline
directories=$newline

# leads PATH: as follow.sh has it, but asks once for each link.
leads() {
    case $known in
        *"$newline$1$tab"*)
            target=${known#*"$newline$1$tab"}
            target=${target%%"$newline"*}
            return
            ;;
    esac
    read_link "$1"
    case $1$target in
        *["$tab$newline"]*) die "$1: a link with a tab or a newline in its name or its target can't be copied" ;;
    esac
    known=$known$1$tab$target$newline
}

# follow() calls this for each link, directory and file on the way.
on_the_way() {
    case $1 in
        *"$newline"*) die "$1: a name with a newline can't be copied" ;;
    esac
    # leads() has noted it.
    [ ! -L "$1" ] || return 0
    if [ -d "$1" ]; then
        case $directories in
            *"$newline.$1$newline"*) ;;
            *) directories=$directories.$1$newline ;;
        esac
    else
        printf '%s\n' "$1" >>"$new/.files"
    fi
}

# bring PATH: notes each directory and link that leads to the file, and the file itself. Sets $real to its path without
# links. Fails when there is no such file.
bring() {
    follow / "$1"
}

# locate NAME: sets $path to where a program is.
locate() {
    case $1 in
        */*)
            [ -x "$1" ] && path=$(cd "${1%/*}/" && pwd -P)/${1##*/}
            return
            ;;
    esac
    before=$IFS
    IFS=:
    for directory in /bin /usr/bin /sbin /usr/sbin $PATH; do
        path=$directory/$1
        if [ -f "$path" ] && [ -x "$path" ]; then
            IFS=$before
            return
        fi
    done
    IFS=$before
    return 1
}

# bring_program NAME: the program itself.
bring_program() {
    locate "$1" && bring_located
}

# bring_located: the program at $path.
bring_located() {
    bring "$path" && printf '%s\n' "$real" >>"$new/.programs"
}

# bring_usual_programs: those of the lists above. That one is absent is noted: should it come to this
# machine later, the default root is made again.
bring_usual_programs() {
    when_missing=say
    for program in $needed; do
        bring_program "$program" || absent="$absent $program"
    done
    [ -z "$absent" ] || say "not on this machine, so left out:$absent"
    if [ -z "$small" ]; then
        common="$common $shells $coreutils $findutils $text $archives $procps $util_linux $network $editors"
    fi
    for program in $common; do
        if ! locate "$program"; then
            absent="$absent $program"
        elif is_welcome "$program"; then
            bring_located
        fi
    done
}

# is_welcome NAME: whether the program at $path can be copied, and is worth it.
is_welcome() {
    # Some distributions let nobody but root read what is setuid.
    [ -r "$path" ] || return 1
    case " $editors " in
        *" $1 "*) [ "$(ldd "$path" | wc -l)" -le "$most_libraries" ] ;;
    esac
}

# bring_interpreters: what the scripts among the programs ask for in their first line.
bring_interpreters() {
    looked=0
    while [ "$(wc -l <"$new/.programs")" -gt "$looked" ]; do
        tail -n "+$((looked + 1))" "$new/.programs" >"$new/.unread"
        looked=$(wc -l <"$new/.programs")
        # With several files head says above each two bytes whose they are. The last ones end no line.
        { tr '\n' '\000' <"$new/.unread" | xargs -0 head -c 2 /dev/null; echo; } | tr -d '\000' |
            sed -n '/^==> /{N;s/^==> \(.*\) <==\n#!$/\1/p;}' >"$new/.scripts"
        while IFS= read -r script; do
            # "#!/bin/sh -e" takes one program, "#!/usr/bin/env -S bash -e" two.
            # shellcheck disable=SC2046 # the words, apart
            set -- $(head -n 1 "$script" | tr -d '\r' | sed 's/^#! *//')
            bring_program "$1" || die "$script: its interpreter $1 isn't there"
            [ "${1##*/}" = env ] || continue
            shift
            while case ${1-} in -* | *=*) true ;; *) false ;; esac do
                shift
            done
            [ $# = 0 ] || bring_program "$1" || die "$script: its interpreter $1 isn't there"
        done <"$new/.scripts"
    done
}

# list_libraries: what the loader would map for each program, line by line as ldd(1) has it. The
# loader itself is asked, the one that sh has: ldd asks it, too, and takes five processes for it. It is
# left what that loader doesn't know, such as programs for another.
list_libraries() {
    command -v ldd >/dev/null || die "ldd isn't there; it comes with the C library (package libc-bin)"
    loader=$(ldd "$(command -v sh)" 2>/dev/null | sed -n 's/^[[:space:]]*\(\/[^ ]*\) (0x[0-9a-f]*)$/\1/p')
    # Of a static program, and of a script, ldd says that it isn't dynamic, and fails.
    while IFS= read -r program; do
        "${loader:-false}" --list "$program" || ldd "$program"
    done <"$new/.programs" 2>/dev/null
}

# bring_libraries: the libraries, and the loader by the path that the program asks for (PT_INTERP).
bring_libraries() {
    list_libraries >"$new/.ldd"
    missing=$(sed -n 's/^[[:space:]]*\(.*\) => not found.*/\1/p' "$new/.ldd" | sort -u)
    [ -z "$missing" ] || "$when_missing" "the loader doesn't find, here on this machine:" "$missing"
    sed -n -e 's/^[[:space:]]*\(\/[^ ]*\) => .*/\1/p' -e 's/^.*=> \(\/.*\) (0x[0-9a-f]*)$/\1/p' \
        -e 's/^[[:space:]]*\(\/.*\) (0x[0-9a-f]*)$/\1/p' "$new/.ldd" | sort -u >"$new/.libraries"
    while IFS= read -r library; do
        bring "$library" || die "$library: ldd names it, and it isn't there"
        # An older glibc loads this one only when a user's name is looked up.
        case $library in
            */libc.so.6) bring "${library%/*}/libnss_files.so.2" || true ;;
        esac
    done <"$new/.libraries"
}

# copy_all: what was noted: directories, and links and files a folder at a time.
copy_all() {
    # shellcheck disable=SC2086 # the lines, apart
    (cd "$new" && set -f && IFS=$newline && mkdir -p $directories) || exit 1
    printf %s "${known#"$newline"}" | cut -f 1 >"$new/.links"
    by_folders "$new/.links" copy_links
    # In a user namespace a file of the host's root belongs to nobody, and its owner can't be kept. Who tries leaves a file
    # behind that nobody else may read.
    keep=-p
    cp -p "$(command -v sh)" "$new/.sh" 2>/dev/null || keep=
    by_folders "$new/.files" copy_files
}

# by_folders LIST COPY: calls `COPY FILE...` for the files of a list that are in the same folder.
by_folders() {
    sort -u "$1" >"$new/.sorted"
    copy=$2
    set --
    folder=
    while IFS= read -r file; do
        if [ "${file%/*}" != "$folder" ]; then
            [ $# = 0 ] || "$copy" "$@"
            set --
            folder=${file%/*}
        fi
        set -- "$@" "$file"
    done <"$new/.sorted"
    [ $# = 0 ] || "$copy" "$@"
}

# copy_links LINK...: all of $folder.
copy_links() {
    for link in "$@"; do
        shift
        # Where the root has a directory of its own it stays: what is written there later mustn't follow a link.
        [ -d "$new$link" ] || set -- "$@" "$link"
    done
    [ $# = 0 ] || cp -P "$@" "$new$folder/" || exit 1
}

# copy_files FILE...: all of $folder.
copy_files() {
    # shellcheck disable=SC2086 # no word, when it is empty
    cp $keep "$@" "$new$folder/" 2>/dev/null || cp "$@" "$new$folder/" || exit 1
    printf '%s\n' "$@" >>"$new/etc/from-host"
}

# index_libraries: those in a folder that isn't built into glibc's loader are found through its cache.
index_libraries() {
    [ -s "$new/.libraries" ] && [ -e /etc/ld.so.cache ] && command -v ldconfig >/dev/null || return 0
    sed 's,/[^/]*$,,' "$new/.libraries" | sort -u >"$new/etc/ld.so.conf"
    ldconfig -X -r "$new" || say "ldconfig failed: a program may not find its libraries"
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

: >"$new/.programs"
absent=
when_missing=die
if [ $# -gt 0 ]; then
    for program in "$@"; do
        bring_program "$program" || die "$program: no such program on this machine"
    done
else
    bring_usual_programs
fi
bring_interpreters
bring_libraries

# What the terminal at hand can do, for shells and editors.
for terminal in dumb linux vt100 xterm xterm-256color screen screen-256color tmux tmux-256color; do
    for directory in /etc/terminfo /lib/terminfo /usr/share/terminfo; do
        entry=$directory/$(printf %.1s "$terminal")/$terminal
        [ ! -f "$entry" ] || bring "$entry"
    done
done
# Which distribution the programs are of.
bring /etc/os-release || true
copy_all
for program in $absent; do
    printf 'absent %s\n' "$program" >>"$new/etc/from-host"
done
index_libraries
rm -f "$new"/.[!.]*

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
# The steps' -t names this file in ENV, which sh reads when somebody types; bash has one of its own.
cat >"$new/etc/shrc" <<'TEXT'
# A prompt that says who one is, in which container, and where.
who=$(id -un 2>/dev/null || id -u)@${HOSTNAME:-$(hostname)}
case $(id -u) in
    0) sign='#' ;;
    *) sign='$' ;;
esac
case ${TERM-dumb} in
    dumb) PS1="$who:\$PWD$sign " ;;
    *)
        # How long a line is bash has to be told: colours don't move the cursor.
        escape=${BASH_VERSION:+'\['}$(printf '\033[') end=m${BASH_VERSION:+'\]'}
        PS1="${escape}1;32$end$who${escape}0$end:${escape}1;34$end\$PWD${escape}0$end$sign "
        alias ls='ls --color=auto' grep='grep --color=auto'
        ;;
esac
unset who sign escape end
alias ll='ls -l' la='ls -A'
TEXT
echo '. /etc/shrc' >"$new/root/.bashrc"
# With a file of its own vi doesn't look for the defaults, which are elsewhere.
echo 'set nocompatible backspace=indent,eol,start ruler' >"$new/root/.vimrc"
finish
