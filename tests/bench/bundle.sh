# shellcheck shell=sh
# Makes in $work a bundle with config.json for the runtime $1 that asks for what our programs do by themselves: our
# seccomp profile and capabilities, 100 MiB, 64 processes. The root, $work/rootfs, is there. $2: the command, as JSON.

bundle() {
    # Of our profile what holds for Docker's fourteen capabilities on x86-64.
    jq '{defaultAction, defaultErrnoRet, architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], syscalls: [.syscalls[]
        | select(.includes.caps == null) | select((.includes.arches // ["amd64"]) | index("amd64"))
        | {names, action} + (if .errnoRet then {errnoRet} else {} end) + (if .args then {args} else {} end)]}' \
        steps/step06-caps/src/seccomp/default-profile.json >"$work/seccomp.json"
    (
        cd "$work"
        [ -e config.json ] || "$1" spec
        jq --slurpfile seccomp seccomp.json --argjson args "$2" '.process.args = $args | .process.terminal = false
            | .root.readonly = false | .linux.seccomp = $seccomp[0]
            | .linux.resources.memory = {limit: 104857600} | .linux.resources.pids = {limit: 64}
            | ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE",
               "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"] as $names
            | .process.capabilities = ({bounding: 0, effective: 0, permitted: 0} | map_values($names | map("CAP_" + .)))' \
            config.json >config.new
        mv config.new config.json
    )
}
