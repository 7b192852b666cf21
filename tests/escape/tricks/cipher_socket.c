/* Makes a socket to the kernel's ciphers. */
#include "../escape.h"

TRICK(cipher_socket) {
    int fd = socket(38 /* AF_ALG */, SOCK_SEQPACKET, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && getenv("ESC_CONTROL")) return missing("AF_ALG");
    TRY(fd);
    return escaped("socket(AF_ALG)");
}
