/* The program that runs tricks: `payload [naive=KIND] TRICK...`, each in a process of its own, one line each:
   TRICK, TAB, E|B|X|M, TAB, errno, TAB, the step that decided. Other verbs are in plant.c, naive.c and hide.c. */
#include "escape.h"

struct trick *tricks;
pid_t starter;
static int report = -1;

static enum end tell(enum end end, const char *what) {
    int error = errno;
    if (report >= 0) dprintf(report, "%c\t%d\t%s", end, end == ESCAPED ? 0 : error, what);
    return end;
}
enum end escaped(const char *what) { return tell(ESCAPED, what); }
enum end blocked(const char *what) { return tell(BLOCKED, what); }
enum end broken(const char *what) { return tell(BROKEN, what); }
enum end missing(const char *what) { return tell(MISSING, what); }

const char *told(const char *name) {
    const char *value = getenv(name);
    if (value == NULL) {
        errno = 0;
        tell(BROKEN, name);
        _exit(0);
    }
    return value;
}
long told_number(const char *name) { return strtol(told(name), NULL, 0); }

int has_secret(const void *bytes, size_t length) {
    const char *secret = told("ESC_TOKEN");
    return memmem(bytes, length, secret, strlen(secret)) != NULL;
}

enum end steal(int fd, const char *what) {
    char bytes[4096];
    ssize_t length = read(fd, bytes, sizeof bytes);
    if (length < 0) return blocked(what);
    close(fd);
    errno = 0;
    return has_secret(bytes, length) ? escaped(what) : blocked(what);
}

enum end steal_path(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return blocked(path);
    return steal(fd, path);
}

static struct __user_cap_data_struct caps[2];
static void read_caps(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    syscall(SYS_capget, &header, caps);
}
uint64_t permitted(void) {
    read_caps();
    return caps[0].permitted | (uint64_t)caps[1].permitted << 32;
}
int effective(void) {
    read_caps();
    return __builtin_popcount(caps[0].effective) + __builtin_popcount(caps[1].effective);
}

const char *in_tmp(const char *name) {
    static char paths[8][512];
    static int next;
    const char *place = getenv("ESC_TMP");
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", place != NULL ? place : "/tmp", name);
    return path;
}

void fresh_name(char *path, size_t size, const char *directory, const char *name) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(path, size, "%s/%s-%ld-%ld", directory, name, (long)now.tv_sec, now.tv_nsec);
}

int write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t done = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return done < 0 ? -1 : 0;
}

int in_child(int (*function)(void *), void *argument) {
    pid_t child = fork();
    if (child < 0) return -1000;
    if (child == 0) _exit(function(argument));
    int status = 0;
    if (waitpid(child, &status, 0) < 0) return -1001;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int become_root_of_a_namespace(void) {
    char map[64];
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWUSER) < 0) return -1;
    if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT) return -1;
    snprintf(map, sizeof map, "0 %u 1", uid);
    if (write_file("/proc/self/uid_map", map) < 0) return -1;
    snprintf(map, sizeof map, "0 %u 1", gid);
    return write_file("/proc/self/gid_map", map);
}

static struct trick *find(const char *name) {
    for (struct trick *trick = tricks; trick != NULL; trick = trick->next)
        if (strcmp(trick->name, name) == 0) return trick;
    return NULL;
}

static void run(const char *name) {
    int ends[2];
    struct trick *trick = find(name);
    if (trick == NULL || pipe2(ends, O_CLOEXEC) < 0) {
        printf("%s\tX\t0\tno such trick\n", name);
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        /* Descriptor numbers stay as they are for the tricks that look for leaks. */
        report = fcntl(ends[1], F_DUPFD_CLOEXEC, 900);
        close(ends[0]);
        close(ends[1]);
        alarm(20);
        errno = 0;
        trick->run();
        _exit(0);
    }
    close(ends[1]);
    char text[512];
    size_t length = 0;
    for (ssize_t part; length < sizeof text - 1 && (part = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
        length += part;
    text[length] = 0;
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (length > 0) printf("%s\t%s\n", name, text);
    else if (WIFSIGNALED(status)) printf("%s\t%c\t%d\tkilled by a signal\n", name, WTERMSIG(status) == SIGALRM ? BROKEN : BLOCKED, -WTERMSIG(status));
    else printf("%s\tX\t0\tit told nothing\n", name);
}

int other_verb(int argc, char **argv);

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    starter = getppid();
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        for (struct trick *trick = tricks; trick != NULL; trick = trick->next) puts(trick->name);
        return 0;
    }
    int other = other_verb(argc, argv);
    if (other >= 0) return other;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "naive=", 6) == 0) {
            if (naive(argv[i] + 6) < 0) {
                printf("%s failed: %s\n", argv[i], strerror(errno));
                return 3;
            }
        } else {
            /* Several in one word, for callers that count words. */
            for (char *name = strtok(argv[i], ","); name != NULL; name = strtok(NULL, ",")) run(name);
        }
    }
    return 0;
}
