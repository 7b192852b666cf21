/* Connects to a socket of the host by its path. */
#include "../escape.h"

TRICK(path_socket) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(name.sun_path, sizeof name.sun_path, "%s", told("ESC_SOCKET"));
    TRY(connect(fd, (void *)&name, sizeof name));
    return steal(fd, "connect(path)");
}
