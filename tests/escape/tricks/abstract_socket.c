/* Connects to an abstract socket of the host. */
#include "../escape.h"

TRICK(abstract_socket) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(name.sun_path + 1, told("ESC_ABSTRACT"));
    TRY(connect(fd, (void *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.sun_path + 1)));
    return steal(fd, "connect(abstract)");
}
