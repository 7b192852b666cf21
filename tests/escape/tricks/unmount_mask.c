/* Takes away the mount that hides a file. */
#include "../escape.h"

TRICK(unmount_mask) {
    char path[512];
    snprintf(path, sizeof path, "%s/cover/masked", told("ESC_RO"));
    TRY(umount2(path, MNT_DETACH));
    return steal_path(path);
}
