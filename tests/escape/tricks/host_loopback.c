/* Connects to a server on the host's loopback. */
#include "../escape.h"

TRICK(host_loopback) {
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(told_number("ESC_PORT")), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    TRY(connect(fd, (void *)&port, sizeof port));
    return steal(fd, "connect(127.0.0.1)");
}
