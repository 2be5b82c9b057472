# shellcheck shell=sh
# Sourced by the scripts beside it: how a path leads to a file, link by link.
#
#   follow ROOT PATH   follows PATH as the kernel would with ROOT as its root directory, so that no
#                      link leads out of it. Sets $real to where PATH ends, without links, and
#                      calls `on_the_way PATH` for each link, directory and file that it meets,
#                      with $target set to where a link leads. Fails when something isn't there.
#   leads PATH         sets $target to where the link PATH leads; a script may have one of its own

on_the_way() { :; }

leads() { read_link "$1"; }

# read_link PATH: the same, and asks each time.
read_link() {
    # A newline at its end is part of it, and would be lost.
    target=$(readlink "$1" && echo x)
    target=${target%?x}
}

follow() {
    root_of_path=${1%/} rest=$2 real='' links=0
    while [ -n "$rest" ]; do
        name=${rest%%/*}
        case $rest in
            */*) rest=${rest#*/} ;;
            *) rest='' ;;
        esac
        case $name in
            '' | .) continue ;;
            ..) real=${real%/*} && continue ;;
        esac
        if [ -L "$root_of_path$real/$name" ]; then
            links=$((links + 1))
            [ "$links" -le 40 ] || return 1
            leads "$root_of_path$real/$name"
            on_the_way "$real/$name"
            case $target in /*) real='' ;; esac
            rest=$target${rest:+/$rest}
        elif [ -e "$root_of_path$real/$name" ]; then
            real=$real/$name
            on_the_way "$real"
        else
            return 1
        fi
    done
}
