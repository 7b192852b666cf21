/* Reads the memory of PID 1 inside, which is a part of the fence. */
#include "../escape.h"

TRICK(init_memory) {
    char bytes[8];
    int fd = open("/proc/1/mem", O_RDONLY);
    if (fd < 0 && errno == ENOENT) return broken("no /proc/1");
    if (fd < 0 && ptrace(PTRACE_SEIZE, 1, 0, 0) < 0) return blocked("open(/proc/1/mem), ptrace");
    (void)bytes;
    return escaped("open(/proc/1/mem) or ptrace");
}
