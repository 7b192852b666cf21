/* Makes a netlink socket to another part of the kernel than its addresses. */
#include "../escape.h"
#include <linux/netlink.h>

TRICK(audit_socket) {
    int fd = socket(AF_NETLINK, SOCK_RAW, 15 /* NETLINK_KOBJECT_UEVENT */);
    TRY(fd);
    return escaped("socket(AF_NETLINK, NETLINK_KOBJECT_UEVENT)");
}
