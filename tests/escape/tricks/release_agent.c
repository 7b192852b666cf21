/* Opens the release agent of a cgroup hierarchy for writing (CVE-2022-0492). */
#include "../escape.h"

TRICK(release_agent) {
    const char *names[] = {"pids", "memory", "devices", "freezer", "cpuset", "blkio", "cpu", "cpu,cpuacct"};
    mkdir(in_tmp("cgroup"), 0755);
    if (open("/sys/fs/cgroup/pids/release_agent", O_WRONLY) >= 0) return escaped("open(release_agent, O_WRONLY)");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (mount("cgroup", in_tmp("cgroup"), "cgroup", 0, names[i]) < 0) continue;
        if (access(in_tmp("cgroup/tasks"), F_OK) < 0) return broken("no hierarchy");
        TRY(open(in_tmp("cgroup/release_agent"), O_WRONLY));
        return escaped("mount cgroup, open(release_agent, O_WRONLY)");
    }
    if (getenv("ESC_CONTROL") && (errno == ENODEV || errno == EBUSY || errno == EINVAL || errno == ENOENT)) return missing("cgroup v1");
    return blocked("mount cgroup");
}
