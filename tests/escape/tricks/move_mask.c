/* Looks around a mask by a second bind of the tree that it lies in. */
#include "../escape.h"

TRICK(move_mask) {
    char path[512];
    mkdir(in_tmp("around"), 0755);
    snprintf(path, sizeof path, "%s/cover", told("ESC_RO"));
    TRY(mount(path, in_tmp("around"), NULL, MS_BIND, NULL));
    return steal_path(in_tmp("around/masked"));
}
