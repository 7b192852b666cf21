/* Opens the kernel's log for writing. */
#include "../escape.h"

TRICK(kernel_log_device) {
    TRY(open("/dev/kmsg", O_WRONLY));
    return escaped("open(/dev/kmsg, O_WRONLY)");
}
