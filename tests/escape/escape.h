/* What every trick has: how it says how it went, and what the victim outside has told it. */
#ifndef ESCAPE_H
#define ESCAPE_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* The trick worked; it was refused; it could not be tried, which is a fault of the test; this kernel has nothing to try. */
enum end { ESCAPED = 'E', BLOCKED = 'B', BROKEN = 'X', MISSING = 'M' };

struct trick {
    const char *name;
    enum end (*run)(void);
    struct trick *next;
};
extern struct trick *tricks;

#define TRICK(NAME)                                                                       \
    static enum end run_##NAME(void);                                                     \
    static struct trick trick_##NAME = {#NAME, run_##NAME, NULL};                         \
    __attribute__((constructor)) static void enter_##NAME(void) {                         \
        trick_##NAME.next = tricks;                                                       \
        tricks = &trick_##NAME;                                                           \
    }                                                                                     \
    static enum end run_##NAME(void)

/* Each keeps errno in what is told; `what` is the step that decided. */
enum end escaped(const char *what);
enum end blocked(const char *what);
enum end broken(const char *what);
enum end missing(const char *what);

/* For calls that fail where the trick is blocked. */
#define TRY(CALL)                                                                         \
    do {                                                                                  \
        if ((CALL) < 0) return blocked(#CALL);                                            \
    } while (0)

/* Set by the test or by `plant`; absent ends the trick as broken. */
const char *told(const char *name);
long told_number(const char *name);

/* Whether what can be read from here has the secret in it. Closes it. */
enum end steal(int fd, const char *what);
enum end steal_path(const char *path);
int has_secret(const void *bytes, size_t length);

/* Every capability that this process is permitted. */
uint64_t permitted(void);
/* How many capabilities it has in effect. */
int effective(void);
/* A name in /tmp, or what stands for it. */
const char *in_tmp(const char *name);
/* A name in a directory that nothing has. */
void fresh_name(char *path, size_t size, const char *directory, const char *name);
int write_file(const char *path, const char *text);
/* Who started the payload. */
extern pid_t starter;
/* A fresh process in which `function` runs; its exit status, or -signal. */
int in_child(int (*function)(void *), void *argument);
/* What follows runs in a sandbox with that mistake. */
int naive(const char *kind);
/* A new user namespace in which the caller's ids are root. */
int become_root_of_a_namespace(void);
#endif
