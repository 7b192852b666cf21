/* Programs that try to live on after a kill, and programs that use things up. Each holds the standard output open as long as
   anything of it lives, and says "ready" when it has done what it does. */
#include "escape.h"

static void ready(void) {
    if (write(1, "ready\n", 6) < 0) _exit(3);
}

static void stay(void) {
    for (;;) pause();
}

static void ignore_everything(void) {
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
}

/* As a daemon does it. */
static int daemonised(void) {
    if (fork() > 0) return 0;
    setsid();
    if (fork() > 0) return 0;
    return 1;
}

static int forkers(void) {
    /* Each generation forks the next and ends, so that no list of pids is ever right. Slow enough for whoever reaps them. */
    for (int i = 0; i < 50; i++) {
        if (fork() != 0) continue;
        setsid();
        for (;;) {
            usleep(20000);
            if (fork() > 0) _exit(0);
        }
    }
    usleep(100000);
    ready();
    stay();
    return 0;
}

static int traced(void) {
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0) _exit(3);
        raise(SIGSTOP);
        stay();
    }
    int status;
    waitpid(child, &status, 0);
    ready();
    stay();
    return 0;
}

static int threads_entry(void *unused) {
    (void)unused;
    stay();
    return 0;
}

/* The parent of a vfork(2) waits in the kernel, where no signal but SIGKILL reaches it. */
static int in_vfork(void) {
    static char stack[65536];
    if (fork() == 0) {
        ready();
        clone(threads_entry, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    }
    stay();
    return 0;
}

int hide(const char *kind) {
    if (strcmp(kind, "daemon") == 0) {
        if (daemonised()) ready(), stay();
        stay();
    }
    if (strcmp(kind, "session") == 0) {
        if (fork() == 0) setsid(), setpgid(0, 0), ready(), stay();
        stay();
    }
    if (strcmp(kind, "deaf") == 0) {
        ignore_everything();
        if (fork() == 0) ready(), stay();
        stay();
    }
    if (strcmp(kind, "stopped") == 0) {
        pid_t child = fork();
        if (child == 0) raise(SIGSTOP), stay();
        int status;
        waitpid(child, &status, WUNTRACED);
        ready();
        stay();
    }
    if (strcmp(kind, "traced") == 0) return traced();
    if (strcmp(kind, "vfork") == 0) return in_vfork();
    if (strcmp(kind, "forkers") == 0) return forkers();
    if (strcmp(kind, "renamed") == 0) {
        if (fork() == 0) {
            prctl(PR_SET_NAME, "kworker/0:0");
            prctl(PR_SET_DUMPABLE, 0);
            prctl(PR_SET_PDEATHSIG, 0);
            prctl(PR_SET_CHILD_SUBREAPER, 1);
            ready();
            stay();
        }
        stay();
    }
    return 3;
}

/* Each takes up to 160 MiB, or 400 processes, and says how far it came. */
enum { MOST = 160, PROCESSES = 400, MIB = 1 << 20 };

static int said(int count) {
    printf("got %d of %d: %s\n", count, MOST, strerror(errno));
    return 0;
}

static int fill(int fd) {
    static char block[MIB];
    int done = 0;
    memset(block, 'x', sizeof block);
    while (done < MOST && write(fd, block, sizeof block) == sizeof block) done++;
    return said(done);
}

static int fill_pipes(int (*make)(int[2])) {
    static char block[65536];
    size_t total = 0;
    memset(block, 'x', sizeof block);
    while (total < (size_t)MOST * MIB) {
        int ends[2];
        if (make(ends) < 0) break;
        fcntl(ends[1], F_SETPIPE_SZ, MIB);
        fcntl(ends[1], F_SETFL, O_NONBLOCK);
        for (ssize_t part; (part = write(ends[1], block, sizeof block)) > 0;) total += part;
    }
    return said(total / MIB);
}
static int a_pipe(int ends[2]) { return pipe(ends); }
static int a_pair(int ends[2]) {
    int size = MIB, done = socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    if (done == 0) setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return done;
}

int bomb(const char *kind) {
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (strcmp(kind, "fork") == 0) {
        int made = 0;
        for (; made < PROCESSES; made++) {
            pid_t child = fork();
            if (child == 0) stay();
            if (child < 0) break;
        }
        printf("got %d of %d: %s\n", made, PROCESSES, strerror(errno));
        return 0;
    }
    if (strcmp(kind, "tmpfs") == 0) return fill(open("/big/file", O_WRONLY | O_CREAT, 0600));
    if (strcmp(kind, "memfd") == 0) return fill(memfd_create("bomb", 0));
    if (strcmp(kind, "pipes") == 0) return fill_pipes(a_pipe);
    if (strcmp(kind, "sockets") == 0) return fill_pipes(a_pair);
    if (strcmp(kind, "shm") == 0) {
        int segment = shmget(IPC_PRIVATE, (size_t)MOST * MIB, 0600);
        char *bytes = shmat(segment, NULL, 0);
        if (segment < 0 || bytes == (void *)-1) return said(0);
        for (int done = 0; done < MOST; done++) memset(bytes + (size_t)done * MIB, 'x', MIB);
        return said(MOST);
    }
    if (strcmp(kind, "inodes") == 0) {
        int made = 0;
        for (char path[64]; made < 5000; made++) {
            snprintf(path, sizeof path, "/big/%d", made);
            int fd = open(path, O_WRONLY | O_CREAT, 0600);
            if (fd < 0) break;
            close(fd);
        }
        printf("got %d of 5000: %s\n", made, strerror(errno));
        return 0;
    }
    return 3;
}
