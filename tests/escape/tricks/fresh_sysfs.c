/* Mounts sysfs, and opens a setting of the kernel for writing. */
#include "../escape.h"

TRICK(fresh_sysfs) {
    mkdir(in_tmp("sys"), 0755);
    TRY(mount("sysfs", in_tmp("sys"), "sysfs", 0, NULL));
    if (open(in_tmp("sys/kernel/uevent_helper"), O_WRONLY) < 0 && open(in_tmp("sys/kernel/mm/transparent_hugepage/enabled"), O_WRONLY) < 0)
        TRY(open(in_tmp("sys/kernel/profiling"), O_WRONLY));
    return escaped("mount sysfs, open(O_WRONLY)");
}
