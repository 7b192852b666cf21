/* Writes to a mount below a tree that was bound read-only. */
#include "../escape.h"

TRICK(make_hidden_file) {
    char path[512];
    fresh_name(path, sizeof path, told("ESC_RO"), "sub/new");
    TRY(open(path, O_WRONLY | O_CREAT, 0600));
    return escaped("open(sub/new, O_CREAT)");
}
