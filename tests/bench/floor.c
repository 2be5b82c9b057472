// The floor: what step 4 asks of the kernel, and nothing else. No arguments to parse, no signals, no
// report of a failure: `floor ROOT COMMAND [ARGUMENT...]` either works or ends with 1.
#define _GNU_SOURCE
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call) do { if ((call) < 0) _exit(1); } while (0)

int main(int argc, char **argv) {
    if (argc < 3) return 1;
    struct clone_args args = {
        .flags = CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    MUST(pid);
    if (pid == 0) {
        const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
        MUST(sethostname("container", 9));
        MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
        MUST(mount(argv[1], argv[1], NULL, MS_BIND | MS_REC, NULL));
        MUST(chdir(argv[1]));
        MUST(syscall(SYS_pivot_root, ".", "."));
        MUST(mount("proc", "/proc", "proc", safe, NULL));
        MUST(mount("sysfs", "/sys", "sysfs", safe, NULL));
        MUST(umount2(".", MNT_DETACH));
        int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        MUST(any);
        struct ifreq lo = {.ifr_name = "lo"};
        MUST(ioctl(any, SIOCGIFFLAGS, &lo));
        lo.ifr_flags |= IFF_UP;
        MUST(ioctl(any, SIOCSIFFLAGS, &lo));
        char *environment[] = {"PATH=/usr/bin:/bin", "HOME=/root", "HOSTNAME=container", NULL};
        execve(argv[2], argv + 2, environment);
        _exit(1);
    }
    int status;
    MUST(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
