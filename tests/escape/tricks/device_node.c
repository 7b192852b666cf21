/* Makes a node of a device of the machine (the kernel's log), and opens it. */
#include "../escape.h"

TRICK(device_node) {
    const char *places[] = {in_tmp("."), "/dev/shm", told("ESC_RW")};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char path[512];
        fresh_name(path, sizeof path, places[i], "node");
        int made = mknod(path, S_IFCHR | 0600, makedev(1, 11));
        int fd = made < 0 ? -1 : open(path, O_RDONLY | O_NONBLOCK);
        int error = errno;
        unlink(path);
        errno = error;
        if (fd >= 0) return escaped("mknod, open");
    }
    return blocked("mknod, open");
}
