/* Mounts a /proc of its own, without masks, and opens a setting of the kernel for writing. */
#include "../escape.h"

TRICK(fresh_proc) {
    mkdir(in_tmp("proc"), 0755);
    TRY(mount("proc", in_tmp("proc"), "proc", 0, NULL));
    TRY(open(in_tmp("proc/sys/kernel/core_pattern"), O_WRONLY));
    return escaped("mount proc, open(core_pattern, O_WRONLY)");
}
