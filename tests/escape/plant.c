/* The host that the tricks are after: `payload plant DIRECTORY COMMAND...` plants keys, segments, sockets, a terminal, leaked
   descriptors and a victim process, says in the environment where they are, and runs the command as its child. */
#include "escape.h"

/* In DIRECTORY/state, shared with whoever looks. */
struct state {
    char token[64];
    volatile int signals, connections, memory, priority;
};
static struct state *state;
/* What attackers look for and try to change in the victim's memory. */
static char memory[64];

static void on_signal(int number) {
    (void)number;
    state->signals++;
}

static int listener(int family, const void *address, socklen_t length, const char *what) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, length) < 0 || listen(fd, 16) < 0) perror(what), exit(3);
    return fd;
}

static void export_number(const char *name, long value) {
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    setenv(name, text, 1);
}

static void serve(int *fds, int count) {
    signal(SIGURG, on_signal);
    struct pollfd polled[8];
    for (;;) {
        for (int i = 0; i < count; i++) polled[i] = (struct pollfd){fds[i], POLLIN, 0};
        int found = poll(polled, count, 50);
        state->memory = memory[40];
        state->priority = getpriority(PRIO_PROCESS, 0);
        if (found < 0) continue;
        for (int i = 0; i < count; i++) {
            if (!(polled[i].revents & POLLIN)) continue;
            int peer = accept4(fds[i], NULL, NULL, SOCK_CLOEXEC);
            if (peer < 0) continue;
            state->connections++;
            if (write(peer, state->token, strlen(state->token)) < 0) perror("answer");
            close(peer);
        }
    }
}

static void plant_victim(const char *directory) {
    struct sockaddr_un name = {.sun_family = AF_UNIX}, path = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "ringfence-%d", getpid());
    snprintf(path.sun_path, sizeof path.sun_path, "%s/outside/socket", directory);
    int fds[3];
    fds[0] = listener(AF_UNIX, &name, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.sun_path + 1), "abstract");
    fds[1] = listener(AF_INET, &port, sizeof port, "tcp");
    fds[2] = listener(AF_UNIX, &path, sizeof path, "path");
    chmod(path.sun_path, 0777);
    socklen_t length = sizeof port;
    getsockname(fds[1], (void *)&port, &length);
    setenv("ESC_ABSTRACT", name.sun_path + 1, 1);
    setenv("ESC_SOCKET", path.sun_path, 1);
    export_number("ESC_PORT", ntohs(port.sin_port));
    export_number("ESC_ADDRESS", (long)memory);
    memcpy(memory, state->token, sizeof memory);
    /* As the victim will share them: somebody may look before it has. */
    state->memory = memory[40];
    state->priority = getpriority(PRIO_PROCESS, 0);
    /* A number that no process in a sandbox has. */
    pid_t victim;
    while ((victim = fork()) > 0 && victim < 4000) waitpid(victim, NULL, 0);
    if (victim == 0) {
        if (getpid() < 4000) _exit(0);
        prctl(PR_SET_PTRACER, -1, 0, 0, 0);
        int secret = memfd_create("secret", MFD_CLOEXEC);
        if (write(secret, state->token, strlen(state->token)) < 0 || dup2(secret, 77) < 0) exit(3);
        serve(fds, 3);
    }
    for (int i = 0; i < 3; i++) close(fds[i]);
    export_number("ESC_PID", victim);
}

static void plant_ipc(const char *token) {
    int shm = shmget(0x52460001, 4096, IPC_CREAT | 0666), queue = msgget(0x52460002, IPC_CREAT | 0666);
    struct { long type; char text[64]; } message = {1, ""};
    char *segment = shmat(shm, NULL, 0);
    if (shm < 0 || queue < 0 || segment == (void *)-1) perror("ipc"), exit(3);
    strcpy(segment, token);
    strcpy(message.text, token);
    for (int i = 0; i < 8; i++) msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT);
    umask(0);
    mqd_t mq = mq_open("/ringfence", O_CREAT | O_RDWR, 0666, &(struct mq_attr){.mq_maxmsg = 8, .mq_msgsize = 64});
    for (int i = 0; mq >= 0 && i < 8; i++) mq_send(mq, token, strlen(token), 0);
    int file = open("/dev/shm/ringfence-planted", O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (file < 0 || write(file, token, strlen(token)) < 0) perror("/dev/shm"), exit(3);
    umask(022);
}

/* Keyrings are in no namespace: what is put into the user's own ends by itself. */
static void plant_keys(const char *token) {
    syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL);
    syscall(SYS_add_key, "user", "ringfence-session", token, strlen(token), -3);
    /* Neither is its name: other arenas have the same pid. */
    unsigned long number = 0;
    if (syscall(SYS_getrandom, &number, sizeof number, 0) != sizeof number) perror("getrandom"), exit(3);
    char name[64];
    snprintf(name, sizeof name, "ringfence-user-%lx", number);
    long user = syscall(SYS_add_key, "user", name, token, strlen(token), -4);
    /* Only who possesses a key may change it. */
    syscall(SYS_keyctl, 8 /* LINK */, -4, -3);
    syscall(SYS_keyctl, 15 /* SET_TIMEOUT */, user, 300);
    syscall(SYS_keyctl, 5 /* SETPERM */, user, 0x3f3f0000);
    syscall(SYS_keyctl, 9 /* UNLINK */, -4, -3);
    long open = syscall(SYS_add_key, "user", "ringfence-open", token, strlen(token), -3);
    syscall(SYS_keyctl, 5 /* SETPERM */, open, 0x3f3f3f3f);
    setenv("ESC_USER_KEY", name, 1);
    export_number("ESC_OPEN_KEY", open);
}

static void plant_terminal(void) {
    setsid();
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) perror("pty"), exit(3);
    int slave = open(ptsname(master), O_RDWR);
    if (slave < 0) perror("pts"), exit(3);
    setenv("ESC_TERMINAL", ptsname(master), 1);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    /* The terminal ends with its master, which this process keeps. */
}

/* Descriptors 9 and 10 and the directory are what a careless caller leaves to its children. */
static void plant_leaks(const char *directory) {
    char path[512];
    snprintf(path, sizeof path, "%s/outside/deep", directory);
    int deep = open(path, O_RDONLY | O_DIRECTORY);
    if (deep < 0 || dup2(deep, 9) < 0 || fchdir(deep) < 0) perror(path), exit(3);
    snprintf(path, sizeof path, "%s/outside/leaked", directory);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    if (file < 0 || dup2(file, 10) < 0) perror(path), exit(3);
    if (deep != 9) close(deep);
    if (file != 10) close(file);
}

static void raise_ambient(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &header, sets) < 0) return;
    sets[0].inheritable = sets[0].permitted & 1u << CAP_NET_RAW;
    syscall(SYS_capset, &header, sets);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0);
}

static int plant(int argc, char **argv) {
    char path[512];
    snprintf(path, sizeof path, "%s/state", argv[2]);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0 || ftruncate(file, sizeof *state) < 0) return perror(path), 3;
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    strncpy(state->token, told("ESC_TOKEN"), sizeof state->token - 1);
    plant_keys(state->token);
    plant_terminal();
    plant_ipc(state->token);
    plant_victim(argv[2]);
    raise_ambient();
    pid_t child = fork();
    if (child == 0) {
        plant_leaks(argv[2]);
        execvp(argv[3], argv + 3);
        _exit(127);
    }
    (void)argc;
    int status = 0;
    for (pid_t ended; (ended = waitpid(-1, &status, 0)) != child;)
        if (ended < 0 && errno != EINTR) return 3;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Brings the loopback interface up. */
static int loopback(void) {
    struct ifreq { char name[16]; short flags; char rest[22]; } request = {"lo", 0x1 | 0x40, ""};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 || ioctl(fd, 0x8914, &request) < 0 ? (perror("lo"), 3) : 0;
}

/* Prints the handle of a file, for whoever may open files by handle. */
static int handle_of(const char *path) {
    struct { struct file_handle handle; unsigned char bytes[128]; } buffer = {.handle.handle_bytes = 128};
    int mount;
    if (name_to_handle_at(AT_FDCWD, path, &buffer.handle, &mount, 0) < 0) return perror(path), 3;
    printf("%d", buffer.handle.handle_type);
    for (unsigned i = 0; i < buffer.handle.handle_bytes; i++) printf(":%u", buffer.handle.f_handle[i]);
    return 0;
}

/* `cap_net_raw=ep` on a file. */
static int give_capability(const char *path) {
    struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};
    data.data[0].permitted = 1u << CAP_NET_RAW;
    return setxattr(path, "security.capability", &data, sizeof data, 0) < 0 ? (perror(path), 3) : 0;
}

int hide(const char *kind);
int bomb(const char *kind);
int exe_runtime(const char *path);
int change_memory(void);
int swap(const char *directory);
int careless_mounts(const char *directory);
int change_own_file(void);

int other_verb(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "plant") == 0 && argc > 3) return plant(argc, argv);
    if (strcmp(verb, "loopback") == 0) return loopback();
    if (strcmp(verb, "handle") == 0 && argc == 3) return handle_of(argv[2]);
    if (strcmp(verb, "setcap") == 0 && argc == 3) return give_capability(argv[2]);
    if (strcmp(verb, "hide") == 0 && argc == 3) return hide(argv[2]);
    if (strcmp(verb, "bomb") == 0 && argc == 3) return bomb(argv[2]);
    /* What a program says that was executed by a trick. */
    if (strcmp(verb, "ids") == 0) return geteuid() != getuid() ? 10 : 11;
    if (strcmp(verb, "caps") == 0) return effective() > 0 ? 10 : 11;
    if (strcmp(verb, "exe-runtime") == 0 && argc == 3) return exe_runtime(argv[2]);
    if (strcmp(verb, "change-memory") == 0) return change_memory();
    if (strcmp(verb, "swap") == 0 && argc == 3) return swap(argv[2]);
    if (strcmp(verb, "careless-mounts") == 0 && argc == 3) return careless_mounts(argv[2]);
    if (strcmp(verb, "change-own-file") == 0) return change_own_file();
    if (strcmp(verb, "kthreadd") == 0) return prctl(PR_SET_NAME, "kthreadd"), pause(), 0;
    return -1;
}
