// The floor of an OCI runtime: what `runc spec` asks of the kernel in its config.json, by the fewest calls, and nothing
// else. No JSON, no check of anything; no record of a container but what `start` and `delete` can't do without.
//
//   oci-floor run ROOT NAME COMMAND [ARGUMENT...]
//   oci-floor create ROOT NAME STATE COMMAND [ARGUMENT...]
//   oci-floor start STATE
//   oci-floor delete NAME STATE
//   oci-floor exec NAME PID COMMAND [ARGUMENT...]
//
// HIERARCHIES are the names in /sys/fs/cgroup of all hierarchies of cgroups v1, given to the compiler.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

// Those of <sys/mount.h>, which can't be included beside <linux/mount.h> everywhere.
extern int mount(const char *, const char *, const char *, unsigned long, const void *);
extern int umount2(const char *, int);
#define DETACH 2

#define MUST(call) do { if ((call) < 0) fail(#call); } while (0)
#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *const hierarchies[] = {HIERARCHIES};

static void fail(const char *call) {
    dprintf(2, "oci-floor: %s: %s\n", call, strerror(errno));
    _exit(1);
}

static const char *in_cgroup(const char *hierarchy, const char *name, const char *file) {
    static char path[512];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s%s%s", hierarchy, name, *name ? "/" : "", file);
    return path;
}

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    MUST(file);
    MUST(write(file, text, strlen(text)));
    MUST(close(file));
}

// A control group in each hierarchy; nobody may enter that of cpuset before it has processors and memory.
static void make_cgroups(const char *name) {
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        const char *hierarchy = hierarchies[i];
        MUST(mkdir(in_cgroup(hierarchy, name, ""), 0755));
        if (strstr(hierarchy, "cpuset")) {
            static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
            for (size_t k = 0; k < COUNT(files); k++) {
                char text[4096];
                int file = open(in_cgroup(hierarchy, "", files[k]), O_RDONLY | O_CLOEXEC);
                MUST(file);
                ssize_t length = read(file, text, sizeof text - 1);
                MUST(length);
                MUST(close(file));
                text[length] = 0;
                put(in_cgroup(hierarchy, name, files[k]), text);
            }
        }
        if (strcmp(hierarchy, "devices") == 0) {
            put(in_cgroup(hierarchy, name, "devices.deny"), "a");
            static const char *const rules[] = {
                "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm",
                "c 5:2 rwm", "c 136:* rwm",
            };
            int file = open(in_cgroup(hierarchy, name, "devices.allow"), O_WRONLY | O_CLOEXEC);
            MUST(file);
            for (size_t k = 0; k < COUNT(rules); k++) MUST(write(file, rules[k], strlen(rules[k])));
            MUST(close(file));
        }
    }
}

// Into the groups: a thread that moves itself alone needs not wait until all threads of the machine are at rest, as one
// that writes to cgroup.procs does.
static void enter_cgroups(const char *name) {
    for (size_t i = 0; i < COUNT(hierarchies); i++) put(in_cgroup(hierarchies[i], name, "tasks"), "0");
}

static void remove_cgroups(const char *name) {
    for (size_t i = 0; i < COUNT(hierarchies); i++) MUST(rmdir(in_cgroup(hierarchies[i], name, "")));
}

// All of config.json's mounts, below the working directory, which is the root that will be.
static void make_mounts(const char *name) {
    const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    MUST(mount("proc", "proc", "proc", 0, NULL));
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    MUST(mkdir("dev/pts", 0755));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    MUST(mkdir("dev/shm", 0755));
    MUST(mount("shm", "dev/shm", "tmpfs", safe, "mode=1777,size=65536k"));
    MUST(mkdir("dev/mqueue", 0755));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", safe, NULL));
    MUST(mount("sysfs", "sys", "sysfs", safe | MS_RDONLY, NULL));
    MUST(mount("cgroup", "sys/fs/cgroup", "tmpfs", safe | MS_RELATIME, "mode=755"));
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        char target[256];
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", hierarchies[i]);
        MUST(mkdir(target, 0755));
        MUST(mount(in_cgroup(hierarchies[i], name, ""), target, NULL, MS_BIND, NULL));
    }
    struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
    };
    MUST(syscall(SYS_mount_setattr, AT_FDCWD, "sys/fs/cgroup", AT_RECURSIVE, &attributes, sizeof attributes));
}

static void make_devices(void) {
    static const struct {
        const char *path;
        int major, minor;
    } devices[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
        {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"},
    };
    umask(0);
    for (size_t i = 0; i < COUNT(devices); i++)
        MUST(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    umask(022);
    for (size_t i = 0; i < COUNT(links); i++) MUST(symlink(links[i][0], links[i][1]));
}

static void hide(void) {
    static const char *const masked[] = {
        "proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
        "proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi",
    };
    static const char *const read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < COUNT(masked); i++) {
        if (mount("dev/null", masked[i], NULL, MS_BIND, NULL) == 0 || errno == ENOENT) continue;
        MUST(errno == ENOTDIR ? 0 : -1);
        MUST(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL));
    }
    for (size_t i = 0; i < COUNT(read_only); i++) {
        if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) < 0) {
            MUST(errno == ENOENT ? 0 : -1);
            continue;
        }
        MUST(mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    }
}

static void lo_up(void) {
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(any);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    MUST(ioctl(any, SIOCSIFFLAGS, &lo));
    MUST(close(any));
}

// Three capabilities; ambient are none of them, as config.json has none that are inheritable.
static void give_up_privileges(void) {
    const uint32_t kept = 1u << CAP_AUDIT_WRITE | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE;
    for (int i = 0; i < 64; i++) {
        if (i < 32 && kept & 1u << i) continue;
        if (prctl(PR_CAPBSET_DROP, i) < 0) break; // After the last one.
    }
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = kept, .permitted = kept}};
    MUST(syscall(SYS_capset, &header, data));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

// What a process of the container gets, the first as well as that of exec.
static void become(char **command) {
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
    const struct rlimit files = {1024, 1024};
    MUST(setsid());
    MUST(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "bench"));
    MUST(setrlimit(RLIMIT_NOFILE, &files));
    MUST(syscall(SYS_setgroups, 0, NULL));
    give_up_privileges();
    MUST(execve(command[0], command, environment));
}

// The container's first process. With a fifo it says when it is ready, and goes on when a byte got through.
static pid_t make(const char *root, const char *name, char **command, int fifo, int ready) {
    struct clone_args args = {
        .flags = CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    MUST(pid);
    if (pid != 0) return pid;
    enter_cgroups(name);
    lo_up();
    MUST(sethostname("runc", 4));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
    MUST(chdir(root));
    make_mounts(name);
    make_devices();
    hide();
    MUST(mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", DETACH));
    MUST(chdir("/"));
    if (fifo >= 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fifo);
        MUST(write(ready, "", 1));
        int start = open(path, O_WRONLY | O_CLOEXEC);
        MUST(start);
        MUST(write(start, "", 1));
    }
    become(command);
    return -1;
}

static int wait_for(pid_t pid) {
    int status;
    MUST(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static const char *in_state(const char *state, const char *file) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", state, file);
    return path;
}

int main(int argc, char **argv) {
    const char *verb = argc > 2 ? argv[1] : "";
    if (strcmp(verb, "run") == 0 && argc > 4) {
        make_cgroups(argv[3]);
        int code = wait_for(make(argv[2], argv[3], argv + 4, -1, -1));
        remove_cgroups(argv[3]);
        return code;
    }
    if (strcmp(verb, "create") == 0 && argc > 5) {
        const char *state = argv[4];
        int ready[2];
        char byte, text[16];
        MUST(mkdir(state, 0700));
        MUST(mkfifo(in_state(state, "start"), 0600));
        int fifo = open(in_state(state, "start"), O_PATH | O_CLOEXEC);
        MUST(fifo);
        MUST(pipe2(ready, O_CLOEXEC));
        make_cgroups(argv[3]);
        pid_t pid = make(argv[2], argv[3], argv + 5, fifo, ready[1]);
        MUST(close(ready[1]));
        MUST(read(ready[0], &byte, 1) == 1 ? 0 : -1);
        int record = open(in_state(state, "pid"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        MUST(record);
        snprintf(text, sizeof text, "%d", pid);
        MUST(write(record, text, strlen(text)));
        return 0;
    }
    if (strcmp(verb, "start") == 0) {
        char byte;
        int start = open(in_state(argv[2], "start"), O_RDONLY | O_CLOEXEC);
        MUST(start);
        MUST(read(start, &byte, 1) == 1 ? 0 : -1);
        return 0;
    }
    if (strcmp(verb, "delete") == 0 && argc == 4) {
        remove_cgroups(argv[2]);
        MUST(unlink(in_state(argv[3], "start")));
        MUST(unlink(in_state(argv[3], "pid")));
        MUST(rmdir(argv[3]));
        return 0;
    }
    if (strcmp(verb, "exec") == 0 && argc > 4) {
        int container = syscall(SYS_pidfd_open, atoi(argv[3]), 0);
        MUST(container);
        MUST(setns(container, CLONE_NEWPID));
        pid_t pid = fork();
        MUST(pid);
        if (pid == 0) {
            enter_cgroups(argv[2]);
            MUST(setns(container, CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET));
            become(argv + 4);
        }
        return wait_for(pid);
    }
    dprintf(2, "oci-floor: run, create, start, delete or exec, and what each of them takes\n");
    return 2;
}
