/* Writes to a tree that was bound read-only. */
#include "../escape.h"

TRICK(write_read_only) {
    char path[512];
    fresh_name(path, sizeof path, told("ESC_RO"), "new");
    TRY(open(path, O_WRONLY | O_CREAT, 0600));
    return escaped("open(new, O_CREAT)");
}
