/* Watches a whole file system by fanotify(7). */
#include "../escape.h"

TRICK(watch_files) {
    long fd = syscall(SYS_fanotify_init, 4 /* FAN_CLASS_CONTENT */, 0);
    if (fd < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("fanotify");
    TRY(fd);
    return escaped("fanotify_init");
}
