/* Programs that go after whoever started them: through the file that is executed, and through memory that is being looked at. */
#include "escape.h"
#include <pthread.h>

/* A runtime that starts the program and ends, as the first container runtimes did (CVE-2019-5736). */
int exe_runtime(const char *program) {
    char own[16];
    snprintf(own, sizeof own, "%d", getpid());
    setenv("ESC_RUNTIME", own, 1);
    if (fork() == 0) {
        execl(program, program, "exe_of_runtime", NULL);
        _exit(127);
    }
    usleep(300000);
    return 0;
}

static char path[4096];
static volatile int stop;

static void *change(void *other) {
    /* One word decides which of two paths of equal length the memory holds. */
    char good[sizeof path];
    strcpy(good, path);
    while (!stop) {
        memcpy(path, other, strlen(other));
        memcpy(path, good, strlen(good));
    }
    return NULL;
}

/* Opens ESC_GOOD while another thread changes the path to ESC_BAD and back: prints how often which file was read. */
int change_memory(void) {
    pthread_t thread;
    long good = 0, bad = 0, refused = 0;
    strcpy(path, told("ESC_GOOD"));
    if (pthread_create(&thread, NULL, change, (void *)told("ESC_BAD")) != 0) return 3;
    for (long i = 0; i < told_number("ESC_ROUNDS"); i++) {
        char text[64] = "";
        int fd = open(path, O_RDONLY);
        if (fd < 0) {
            refused++;
            continue;
        }
        if (read(fd, text, sizeof text - 1) < 0) return 3;
        if (has_secret(text, strlen(text))) bad++;
        else good++;
        close(fd);
    }
    stop = 1;
    printf("%ld %ld %ld\n", good, bad, refused);
    return 0;
}

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static void swap_names(const char *directory) {
    char one[600], other[600];
    snprintf(one, sizeof one, "%s/swap", directory);
    snprintf(other, sizeof other, "%s/link", directory);
    syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
}

/* Exchanges a directory and a symlink until it is killed: often, but others need the CPU too. */
int swap(const char *directory) {
    printf("ready\n");
    for (;;) {
        swap_names(directory);
        usleep(20);
    }
}

/* A launcher that looks whether the directory is one, and then mounts by its path (CVE-2021-30465 and its like): prints how often
   the mount was somewhere else, out of how many. */
int careless_mounts(const char *directory) {
    char path[600], outside[600];
    struct stat before, after, seen;
    int fooled = 0, tried = 0;
    if (naive("mounts") < 0) return perror("mounts"), 3;
    snprintf(path, sizeof path, "%s/swap/sub", directory);
    snprintf(outside, sizeof outside, "%s/../outside/sub", directory);
    if (stat(outside, &before) < 0) return perror(outside), 3;
    pid_t attacker = fork();
    if (attacker == 0) swap(directory);
    /* A guard: on a machine with nothing else to do it takes milliseconds. */
    for (time_t end = time(NULL) + 60; fooled == 0 && time(NULL) < end;) {
        char parent[600];
        snprintf(parent, sizeof parent, "%s/swap", directory);
        if (lstat(parent, &seen) < 0 || !S_ISDIR(seen.st_mode)) continue;
        if (mount("careless", path, "tmpfs", 0, NULL) < 0) continue;
        tried++;
        stat(outside, &after);
        if (after.st_dev != before.st_dev) fooled++, umount2(outside, MNT_DETACH);
        snprintf(parent, sizeof parent, "%s/link/sub", directory);
        if (umount2(path, MNT_DETACH) < 0) umount2(parent, MNT_DETACH);
    }
    kill(attacker, SIGKILL);
    printf("%d %d\n", fooled, tried);
    return 0;
}

/* Opens the file that it is executed from, becomes another program, and writes to it. */
int change_own_file(void) {
    int fd = open("/proc/self/exe", O_PATH);
    if (fd < 0 || dup2(fd, 50) < 0) return 3;
    execl("/bin/sh", "sh", "-c", "echo changed >> /proc/self/fd/50 && exit 10; exit 11", NULL);
    return 3;
}
