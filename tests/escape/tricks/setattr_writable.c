/* Likewise by mount_setattr(2). */
#include "../escape.h"

TRICK(setattr_writable) {
    struct { uint64_t set, clear, propagation, fd; } attr = {0, 1 /* RDONLY */, 0, 0};
    char path[512];
    long done = syscall(442, AT_FDCWD, told("ESC_RO"), 0, &attr, sizeof attr);
    if (done < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("mount_setattr");
    TRY(done);
    fresh_name(path, sizeof path, told("ESC_RO"), "new");
    TRY(open(path, O_WRONLY | O_CREAT, 0600));
    return escaped("mount_setattr, open(O_CREAT)");
}
