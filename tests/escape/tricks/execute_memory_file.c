/* Executes a file that is in no file system, by memfd_create(2) and execveat(2). */
#include "../escape.h"

static int execute_fd(void *fd) {
    char *arguments[] = {"memory", "caps", NULL}, *none[] = {NULL};
    syscall(SYS_execveat, *(int *)fd, "", arguments, none, AT_EMPTY_PATH);
    return 127;
}

TRICK(execute_memory_file) {
    int fd = memfd_create("program", 0), own = open("/proc/self/exe", O_RDONLY);
    char block[65536];
    if (fd < 0) return blocked("memfd_create");
    for (ssize_t part; (part = read(own, block, sizeof block)) > 0;)
        if (write(fd, block, part) != part) return broken("write");
    int done = in_child(execute_fd, &fd);
    errno = done == 127 ? EACCES : 0;
    return done == 11 ? escaped("execveat") : blocked("execveat");
}
