// Measures commands in turns: every turn runs each of the contestants once, in an order that changes, so that a machine
// that is busy for a while is busy for all of them, and nobody always comes after the same neighbour.
//
//   oci-turns COUNT WARM -- NAME STEP [, STEP]... [-- NAME STEP [, STEP]...]...
//   oci-turns --at-once N COUNT WARM -- ...
//
// A step is a command, which has to end with 0, or `wait FILE`, which lasts until the process has ended whose number is
// in FILE, and takes its end like a command's. A line for each contestant: its name, the median of the time of all
// steps with its lower and upper quartile, in microseconds, and the peak memory of the first step, the median and the
// largest, in kB: wait4's ru_maxrss, that of the largest one process among the command and all it waited for.
//
// With --at-once each step is done N times at the same time, and % in its words is 0 to N - 1. Then the line has the
// median of each step: from the first command's start to the last one's end.
//
// The first command that fails ends it all: its output, and exit code 1.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_CONTESTANTS 8
#define MOST_STEPS 8
#define MOST_AT_ONCE 1024
#define SECONDS_AT_MOST 120

static struct contestant {
    const char *name;
    char **steps[MOST_STEPS];
    int step_count;
    double *times[MOST_STEPS]; // With --at-once one for each step, otherwise the first for all.
    double *memory;
} contestants[MOST_CONTESTANTS];
static int contestant_count;

static int output; // Of all commands.
static pid_t running[MOST_AT_ONCE];
static volatile sig_atomic_t stopped, late;

static void on_stop(int signal) { stopped = signal; }

static void on_alarm(int signal) {
    (void)signal;
    late = 1;
    for (int i = 0; i < MOST_AT_ONCE; i++)
        if (running[i] > 0) kill(running[i], SIGKILL);
}

static void die(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vdprintf(2, format, words);
    va_end(words);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void failed(const struct contestant *whose, char **step, const char *how, int number) {
    dprintf(2, "%s: this %s %d%s:", whose->name, how, number, late ? ", for it took too long" : "");
    for (char **word = step; *word; word++) dprintf(2, " %s", *word);
    dprintf(2, "\n");
    off_t start = 0;
    while (sendfile(2, output, &start, 1 << 20) > 0) {}
    exit(1);
}

static void judge(const struct contestant *whose, char **step, int status) {
    if (WIFSIGNALED(status)) failed(whose, step, "was ended by signal", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0) failed(whose, step, "ended with", WEXITSTATUS(status));
}

static pid_t start(const struct contestant *whose, char **step) {
    extern char **environ;
    static posix_spawnattr_t attributes;
    static posix_spawn_file_actions_t files;
    static int ready;
    if (!ready) {
        sigset_t all, none;
        sigfillset(&all);
        sigemptyset(&none);
        posix_spawnattr_init(&attributes);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
        posix_spawnattr_setsigdefault(&attributes, &all);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawn_file_actions_init(&files);
        posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_adddup2(&files, output, 1);
        posix_spawn_file_actions_adddup2(&files, output, 2);
        ready = 1;
    }
    pid_t pid;
    int error = posix_spawn(&pid, step[0], &files, &attributes, step, environ);
    if (error) die("%s: %s: %s\n", whose->name, step[0], strerror(error));
    return pid;
}

static int is_wait(char **step) { return strcmp(step[0], "wait") == 0 && step[1] && !step[2]; }

// The end of a process that a command left behind. We are its parent now, unless the command left another one for that.
static void wait_for_process(const struct contestant *whose, char **step) {
    char text[32] = "";
    int file = open(step[1], O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, text, sizeof text - 1) < 1) die("%s: no process in %s\n", whose->name, step[1]);
    close(file);
    int process = syscall(SYS_pidfd_open, atoi(text), 0);
    if (process < 0) die("%s: process %s of %s: %s\n", whose->name, text, step[1], strerror(errno));
    siginfo_t end = {0};
    int error;
    do error = waitid(P_PIDFD, process, &end, WEXITED) < 0 ? errno : 0;
    while (error == EINTR && !late);
    if (error == ECHILD) {
        struct pollfd ended = {.fd = process, .events = POLLIN};
        while (poll(&ended, 1, -1) < 0 && !late) {}
    }
    close(process);
    if (late) failed(whose, step, "lasts longer than seconds:", SECONDS_AT_MOST);
    if (!error && (end.si_code != CLD_EXITED || end.si_status != 0))
        failed(whose, step, "saw an end with", end.si_status);
}

// Whatever else commands left behind and that has ended: it has no other parent, and ends nobody else's turn.
static void reap(void) {
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
}

static void end_of(const struct contestant *whose, char **step, pid_t pid, double *memory) {
    int status;
    struct rusage usage;
    while (wait4(pid, &status, 0, &usage) < 0)
        if (errno != EINTR) die("%s: wait4: %s\n", whose->name, strerror(errno));
    judge(whose, step, status);
    if (memory) *memory = usage.ru_maxrss;
}

static void leave_if_stopped(void) {
    if (stopped) exit(128 + stopped);
}

static void turn(struct contestant *whose, int number) {
    double begin = now();
    for (int i = 0; i < whose->step_count; i++) {
        char **step = whose->steps[i];
        if (is_wait(step)) {
            wait_for_process(whose, step);
        } else {
            running[0] = start(whose, step);
            end_of(whose, step, running[0], i == 0 && number >= 0 ? &whose->memory[number] : NULL);
            running[0] = 0;
        }
        leave_if_stopped();
    }
    if (number >= 0) whose->times[0][number] = now() - begin;
}

static void turn_at_once(struct contestant *whose, int number, int at_once) {
    static char **words[MOST_AT_ONCE];
    for (int i = 0; i < whose->step_count; i++) {
        char **step = whose->steps[i];
        int length = 0;
        while (step[length]) length++;
        for (int k = 0; k < at_once; k++) {
            words[k] = calloc(length + 1, sizeof(char *));
            for (int w = 0; w < length; w++) {
                const char *place = strchr(step[w], '%');
                if (!place) words[k][w] = strdup(step[w]);
                else if (asprintf(&words[k][w], "%.*s%d%s", (int)(place - step[w]), step[w], k, place + 1) < 0) exit(1);
            }
        }
        double begin = now();
        int commands = !is_wait(step);
        for (int k = 0; k < at_once && commands; k++) running[k] = start(whose, words[k]);
        for (int k = 0; k < at_once; k++) {
            if (commands) end_of(whose, words[k], running[k], NULL);
            else wait_for_process(whose, words[k]);
            running[k] = 0;
        }
        if (number >= 0) whose->times[i][number] = now() - begin;
        for (int k = 0; k < at_once; k++) {
            for (int w = 0; w < length; w++) free(words[k][w]);
            free(words[k]);
        }
        leave_if_stopped();
    }
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Of values that are sorted.
static double quantile(const double *values, int count, double part) {
    double place = part * (count - 1);
    int lower = place;
    return lower + 1 < count ? values[lower] + (place - lower) * (values[lower + 1] - values[lower]) : values[lower];
}

static int number_of(const char *text, int least, int most) {
    char *end;
    long number = strtol(text, &end, 10);
    if (*end || end == text || number < least || number > most)
        die("oci-turns: %s isn't from %d to %d\n", text, least, most);
    return number;
}

int main(int argc, char **argv) {
    char **word = argv + 1, **last = argv + argc;
    int at_once = 0;
    if (last - word > 2 && strcmp(word[0], "--at-once") == 0) {
        at_once = number_of(word[1], 1, MOST_AT_ONCE);
        word += 2;
    }
    if (last - word < 4) die("oci-turns: how many turns, how many before them, and contestants\n");
    int count = number_of(word[0], 1, 1000000), warm = number_of(word[1], 0, 1000000);
    word += 2;
    while (word < last && strcmp(*word, "--") == 0) {
        if (contestant_count == MOST_CONTESTANTS || last - word < 3)
            die("oci-turns: too many contestants, or an empty one\n");
        struct contestant *new = &contestants[contestant_count++];
        *word = NULL;
        new->name = word[1];
        word += 2;
        while (word < last && strcmp(*word, "--") != 0) {
            if (new->step_count == MOST_STEPS) die("oci-turns: too many steps\n");
            new->times[new->step_count] = calloc(count, sizeof(double));
            new->steps[new->step_count++] = word;
            while (word < last && strcmp(*word, "--") != 0 && strcmp(*word, ",") != 0) word++;
            if (word < last && strcmp(*word, ",") == 0) *word++ = NULL;
        }
        new->memory = calloc(count, sizeof(double));
    }

    // Out of the terminal's reach: who started us gets its ^C, and tells us. Then what runs comes to its end first.
    setpgid(0, 0);
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART}, alarmed = {.sa_handler = on_alarm};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
    sigaction(SIGALRM, &alarmed, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    output = memfd_create("output", MFD_CLOEXEC);
    if (output < 0 || fcntl(output, F_SETFL, O_APPEND) < 0) die("oci-turns: memfd_create: %s\n", strerror(errno));

    unsigned random = 2463534242u;
    for (int number = -warm; number < count; number++) {
        struct contestant *order[MOST_CONTESTANTS];
        for (int i = 0; i < contestant_count; i++) {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            int place = random % (i + 1);
            order[i] = order[place];
            order[place] = &contestants[i];
        }
        for (int i = 0; i < contestant_count; i++) {
            if (ftruncate(output, 0) < 0) die("oci-turns: ftruncate: %s\n", strerror(errno));
            alarm(SECONDS_AT_MOST);
            if (at_once) turn_at_once(order[i], number, at_once);
            else turn(order[i], number);
            alarm(0);
            reap();
        }
    }

    for (int i = 0; i < contestant_count; i++) {
        struct contestant *each = &contestants[i];
        printf("%s", each->name);
        for (int k = 0; k < (at_once ? each->step_count : 1); k++) {
            qsort(each->times[k], count, sizeof(double), by_size);
            printf(" %.1f", quantile(each->times[k], count, 0.5));
        }
        if (!at_once) {
            qsort(each->memory, count, sizeof(double), by_size);
            printf(" %.1f %.1f %.0f %.0f", quantile(each->times[0], count, 0.25), quantile(each->times[0], count, 0.75),
                   quantile(each->memory, count, 0.5), each->memory[count - 1]);
        }
        printf("\n");
    }
    return 0;
}
