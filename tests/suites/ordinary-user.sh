#!/bin/sh
# ordinary-user.sh FOLDER WORKSPACE TOOLCHAIN REGISTRY DEPENDENCIES
#
# Run by the suite `checkout` as root, in a mount namespace of its own: makes a user who may use
# sudo, gives them a copy of the workspace, and has them type the README's commands. The files that
# describe the user are mounted over this machine's, and vanish with the namespace.

set -eu
folder=$1 workspace=$2 toolchain=$3 registry=$4 dependencies=$5
uid=4242

for file in passwd group shadow; do
    cp -p "/etc/$file" "$folder/$file"
done
echo "learner:x:$uid:$uid::$folder/home:/bin/sh" >>"$folder/passwd"
echo "learner:x:$uid:" >>"$folder/group"
echo "learner:*:19000:0:99999:7:::" >>"$folder/shadow"
printf 'root ALL=(ALL:ALL) ALL\nlearner ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$folder/sudoers"
chmod 440 "$folder/sudoers"
for file in passwd group shadow sudoers; do
    mount --bind "$folder/$file" "/etc/$file"
done
# The default root of this run is nobody else's.
mount -t tmpfs -o mode=755 state /var/lib

mkdir "$folder/home" "$folder/toolchain" "$folder/home/cargo" "$folder/home/ten-steps"
mount --bind "$toolchain" "$folder/toolchain"
cp -r "$registry" "$folder/home/cargo/registry"
tar -C "$workspace" --exclude=./target --exclude=./.git -c . | tar -C "$folder/home/ten-steps" -x
cargo=$folder/home/cargo
chown -R "$uid:$uid" "$folder/home"
home=$folder/home/ten-steps
# Nothing is built twice: what was built holds where the sources and the registry lie at the same places. There this user's
# own copies are put, in this namespace; unless they lie where nobody else may go.
place=$(dirname "$registry") above=$(dirname "$(dirname "$registry")")
can_go() {
    setpriv --reuid "$uid" --regid "$uid" --clear-groups test -x "$1"
}
case $folder:$workspace/ in
    "$workspace"/* | "$above"/* | *:"$above"/*) ;;
    *)
        if can_go "$(dirname "$workspace")"; then
            built=${CARGO_TARGET_DIR:-$workspace/target}
            # Another test may give a file one more name meanwhile, which tar takes for a change of it.
            copy() {
                mkdir -p "$2"
                tar -C "$1" --warning=no-file-changed --exclude=incremental -c debug | tar -C "$2" -x
            }
            copy "$built" "$home/target"
            # What the exercises depend on, for the suites and for this user's own.
            for target in target/tmp/exercises/target exercises/target; do
                copy "$dependencies" "$home/$target"
            done
            # A program is built all the same.
            touch "$home/steps/step10-exec/src/main.rs"
            chown -R "$uid:$uid" "$home"
            mount -t tmpfs -o mode=755 home "$above"
            mkdir "$place"
            mount --bind "$cargo" "$place"
            mount --bind "$home" "$workspace"
            cargo=$place home=$workspace
        fi
        ;;
esac

# How cargo builds is as it was for what is built already.
as_learner() {
    setpriv --reuid "$uid" --regid "$uid" --init-groups env -i \
        HOME="$folder/home" PATH="$folder/toolchain/bin:/usr/bin:/bin" TERM=dumb \
        CARGO_HOME="$cargo" CARGO_NET_OFFLINE=true TEN_STEPS_NESTED="$TEN_STEPS_NESTED" \
        ${CARGO_INCREMENTAL:+"CARGO_INCREMENTAL=$CARGO_INCREMENTAL"} \
        ${CARGO_PROFILE_DEV_DEBUG:+"CARGO_PROFILE_DEV_DEBUG=$CARGO_PROFILE_DEV_DEBUG"} \
        "$@"
}

cd "$home"
echo "echo container says \$\$ \$(hostname)" | as_learner cargo run -p step10-exec -- run --rm
# The suites that build, that write into the checkout or where state lies, and that can see what sudo changes of
# environment and signals. All others do the same whoever called cargo.
as_learner cargo test --offline --no-fail-fast -- \
    programs:: signals:: roots:: first_minute:: checks::our_solution checks::the_list exercises:: desk::
echo "files of root: $(find "$folder/home" -user 0 | wc -l)"

# The same user without the right to use sudo: a user namespace does for chapters 1 to 4.
as_learner env TEN_STEPS_NO_SUDO=1 cargo progress doctor
for chapter in 1 2 3 4; do as_learner env TEN_STEPS_NO_SUDO=1 cargo progress check $chapter --solution; done
echo "echo namespace says \$\$ \$(hostname)" | as_learner env TEN_STEPS_NO_SUDO=1 cargo run -q -p step04-pivot-root
as_learner env TEN_STEPS_NO_SUDO=1 cargo progress start 4 >/dev/null
as_learner env TEN_STEPS_NO_SUDO=1 cargo progress solve 4.1
as_learner env TEN_STEPS_NO_SUDO=1 cargo progress check 4 || echo "exit code $?"
echo "files of root in the end: $(find "$folder/home" -user 0 | wc -l)"
