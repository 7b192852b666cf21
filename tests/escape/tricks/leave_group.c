/* Puts itself into another group, to leave its limits behind. */
#include "../escape.h"

TRICK(leave_group) {
    const char *groups[] = {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (write_file(groups[i], "0") == 0) return escaped("write(cgroup.procs)");
    if (errno == ENOENT && getenv("ESC_CONTROL")) return missing("/sys/fs/cgroup");
    return blocked("write(cgroup.procs)");
}
