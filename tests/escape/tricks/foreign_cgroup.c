/* Puts itself into a group of the host by a cgroup2 file system of its own. */
#include "../escape.h"

TRICK(foreign_cgroup) {
    mkdir(in_tmp("unified"), 0755);
    TRY(mount("cgroup2", in_tmp("unified"), "cgroup2", 0, NULL));
    TRY(open(in_tmp("unified/cgroup.procs"), O_WRONLY));
    return escaped("mount cgroup2, open(cgroup.procs, O_WRONLY)");
}
