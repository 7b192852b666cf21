/* Writes to the memory of a process of the host through /proc. */
#include "../escape.h"

TRICK(proc_memory) {
    char path[64], old[8];
    snprintf(path, sizeof path, "/proc/%s/mem", told("ESC_PID"));
    int fd = open(path, O_RDWR);
    TRY(fd);
    TRY(pread(fd, old, sizeof old, told_number("ESC_ADDRESS")));
    TRY(pwrite(fd, old, sizeof old, told_number("ESC_ADDRESS")));
    return memcmp(old, told("ESC_TOKEN"), sizeof old) == 0 ? escaped("pwrite(mem)") : blocked("somebody else");
}
