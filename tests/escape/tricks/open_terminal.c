/* Opens the caller's terminal. */
#include "../escape.h"

TRICK(open_terminal) {
    TRY(open("/dev/tty", O_RDWR | O_NOCTTY));
    return escaped("open(/dev/tty)");
}
