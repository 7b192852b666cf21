/* Makes a socket to the hypervisor, which no network namespace confines. */
#include "../escape.h"

TRICK(virtual_machine_socket) {
    int fd = socket(40 /* AF_VSOCK */, SOCK_STREAM, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && getenv("ESC_CONTROL")) return missing("AF_VSOCK");
    TRY(fd);
    return escaped("socket(AF_VSOCK)");
}
