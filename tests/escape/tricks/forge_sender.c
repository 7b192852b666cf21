/* Says over a socket that it is another process and user. */
#include "../escape.h"

TRICK(forge_sender) {
    int ends[2], on = 1;
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0) return broken("socketpair");
    setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    struct { struct cmsghdr head; struct ucred who; } control = {{CMSG_LEN(sizeof(struct ucred)), SOL_SOCKET, SCM_CREDENTIALS}, {getpid(), 4242, 4242}};
    struct iovec byte = {"x", 1};
    struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    TRY(sendmsg(ends[0], &message, 0));
    return escaped("sendmsg(SCM_CREDENTIALS)");
}
