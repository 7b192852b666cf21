/* Pastes into a console (CVE-2023-28100): asks for the state of the shift keys, by the same call. */
#include "../escape.h"

TRICK(paste_into_console) {
    char ask = 6;
    int fd = isatty(0) ? 0 : open("/dev/tty0", O_RDWR | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == EPERM || errno == ENXIO) && getenv("ESC_CONTROL")) return missing("/dev/tty0");
    TRY(fd);
    if (ioctl(fd, TIOCLINUX, &ask) < 0) {
        if (errno == ENOTTY && getenv("ESC_CONTROL")) return missing("a console");
        return blocked("ioctl(TIOCLINUX)");
    }
    return escaped("ioctl(TIOCLINUX)");
}
