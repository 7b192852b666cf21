/* Reads the kernel's log. */
#include "../escape.h"

TRICK(kernel_log) {
    char text[64];
    TRY(syscall(SYS_syslog, 3 /* READ_ALL */, text, sizeof text));
    return escaped("syslog(READ_ALL)");
}
