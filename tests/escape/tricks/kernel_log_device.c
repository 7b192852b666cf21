/* Opens the kernel's log for writing. */
#include "../escape.h"

TRICK(kernel_log_device) {
    int fd = open("/dev/kmsg", O_WRONLY);
    if (fd < 0 && (errno == ENOENT || errno == EPERM) && getenv("ESC_CONTROL")) return missing("/dev/kmsg");
    TRY(fd);
    return escaped("open(/dev/kmsg, O_WRONLY)");
}
