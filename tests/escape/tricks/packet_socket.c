/* Makes a socket for raw frames. */
#include "../escape.h"

TRICK(packet_socket) {
    int fd = socket(17 /* AF_PACKET */, SOCK_RAW, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && getenv("ESC_CONTROL")) return missing("AF_PACKET");
    TRY(fd);
    return escaped("socket(AF_PACKET)");
}
