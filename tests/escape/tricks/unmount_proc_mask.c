/* Takes away what covers dangerous entries of /proc, and opens one for writing. */
#include "../escape.h"

TRICK(unmount_proc_mask) {
    for (int i = 0; i < 8 && umount2("/proc/sys", MNT_DETACH) == 0; i++);
    TRY(open("/proc/sys/kernel/core_pattern", O_WRONLY));
    return escaped("umount, open(core_pattern, O_WRONLY)");
}
