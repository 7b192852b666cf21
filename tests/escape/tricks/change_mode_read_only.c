/* Changes the mode of a file below a read-only bind. */
#include "../escape.h"

TRICK(change_mode_read_only) {
    char path[512];
    snprintf(path, sizeof path, "%s/own", told("ESC_RO"));
    TRY(chmod(path, 0640));
    return escaped("chmod");
}
