/* Remounts a read-only bind writable, and writes. */
#include "../escape.h"

TRICK(remount_writable) {
    char path[512];
    TRY(mount(NULL, told("ESC_RO"), NULL, MS_REMOUNT | MS_BIND, NULL));
    fresh_name(path, sizeof path, told("ESC_RO"), "new");
    TRY(open(path, O_WRONLY | O_CREAT, 0600));
    return escaped("remount, open(O_CREAT)");
}
