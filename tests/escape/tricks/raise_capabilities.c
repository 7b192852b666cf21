/* Takes capabilities by capset(2). */
#include "../escape.h"

TRICK(raise_capabilities) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    TRY(syscall(SYS_capget, &header, sets));
    sets[0].permitted |= 1 << CAP_NET_RAW;
    sets[0].effective |= 1 << CAP_NET_RAW;
    TRY(syscall(SYS_capset, &header, sets));
    return escaped("capset(CAP_NET_RAW)");
}
